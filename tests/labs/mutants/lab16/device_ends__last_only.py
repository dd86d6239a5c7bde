# mutant: infero.lanes.device_ends
# diagnosis: wrong-type
# story: returns the last end alone
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    end = 0.0
    for i, k in enumerate(kernels_s):
        end = max((i + 1) * launch_s, end) + k
    return end
