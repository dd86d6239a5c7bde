# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: counts-threads
# story: every thread moves its own sectors
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    total = 0
    for i in indexes:
        first = i * element_bytes // 32
        last = ((i + 1) * element_bytes - 1) // 32
        total += last - first + 1
    return total
