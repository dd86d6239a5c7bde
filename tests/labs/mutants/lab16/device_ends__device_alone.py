# mutant: infero.lanes.device_ends
# diagnosis: no-launches
# story: leaves the launches out
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends, end = [], 0.0
    for k in kernels_s:
        end += k
        ends.append(end)
    return ends
