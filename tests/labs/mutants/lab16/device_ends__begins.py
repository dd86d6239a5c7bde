# mutant: infero.lanes.device_ends
# diagnosis: begins
# story: returns the beginnings
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    starts, end = [], 0.0
    for i, k in enumerate(kernels_s):
        start = max((i + 1) * launch_s, end)
        starts.append(start)
        end = start + k
    return starts
