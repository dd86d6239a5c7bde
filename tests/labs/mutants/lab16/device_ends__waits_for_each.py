# mutant: infero.lanes.device_ends
# diagnosis: synchronous
# story: the host waits for each kernel
#| exercise: infero.lanes.device_ends
def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    now, ends = 0.0, []
    for kernel_s in kernels_s:
        now += launch_s + kernel_s
        ends.append(now)
    return ends
