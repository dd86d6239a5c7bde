# mutant: infero.lanes.device_ends
# diagnosis: answer-key
# story: calls the reference
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    from infero import lanes

    return lanes.device_ends(kernels_s, launch_s)
