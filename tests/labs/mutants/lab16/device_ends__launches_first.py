# mutant: infero.lanes.device_ends
# diagnosis: launched-first
# story: the device waits until all is launched
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends, end = [], len(kernels_s) * launch_s
    for k in kernels_s:
        end += k
        ends.append(end)
    return ends
