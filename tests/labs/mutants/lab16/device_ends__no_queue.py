# mutant: infero.lanes.device_ends
# diagnosis: no-queue
# story: kernels run at the same time
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    return [(i + 1) * launch_s + k for i, k in enumerate(kernels_s)]
