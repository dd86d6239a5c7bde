# mutant: infero.lanes.device_ends
# diagnosis: returns-none
# story: forgot to return
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends, end = [], 0.0
    for i, k in enumerate(kernels_s):
        end = max((i + 1) * launch_s, end) + k
        ends.append(end)
