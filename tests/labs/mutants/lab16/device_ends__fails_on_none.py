# mutant: infero.lanes.device_ends
# story: looks at the first kernel before it knows that there is one
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends = [launch_s + kernels_s[0]]
    for i, k in enumerate(kernels_s[1:], 2):
        ends.append(max(i * launch_s, ends[-1]) + k)
    return ends
