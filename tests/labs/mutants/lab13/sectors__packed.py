# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: assumes-packed
# story: bytes over 32, rounded up
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    return -(-len(set(indexes)) * element_bytes // 32)
