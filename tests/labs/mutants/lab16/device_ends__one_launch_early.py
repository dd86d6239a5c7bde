# mutant: infero.lanes.device_ends
# diagnosis: one-launch-early
# story: kernel 0 begins at time 0
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    ends, end = [], 0.0
    for i, kernel_s in enumerate(kernels_s):
        end = max(i * launch_s, end) + kernel_s
        ends.append(end)
    return ends
