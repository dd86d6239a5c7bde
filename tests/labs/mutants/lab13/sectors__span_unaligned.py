# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: assumes-aligned
# story: span of bytes over 32
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    span = (max(indexes) - min(indexes) + 1) * element_bytes
    return (span + 31) // 32
