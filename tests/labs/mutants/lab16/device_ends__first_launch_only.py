# mutant: infero.lanes.device_ends
# diagnosis: launches-forgotten
# story: only the first launch costs anything
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends, end = [], launch_s
    for k in kernels_s:
        end += k
        ends.append(end)
    return ends
