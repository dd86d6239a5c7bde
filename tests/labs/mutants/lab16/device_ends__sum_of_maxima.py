# mutant: infero.lanes.device_ends
# diagnosis: slower-lane-sum
# story: adds the larger of launch and kernel
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends, end = [], 0.0
    for k in kernels_s:
        end += max(k, launch_s)
        ends.append(end)
    return ends
