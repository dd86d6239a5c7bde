# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: counts-span
# story: everything from the first to the last
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    first = min(indexes) * element_bytes // 32
    last = (max(indexes) * element_bytes + element_bytes - 1) // 32
    return last - first + 1
