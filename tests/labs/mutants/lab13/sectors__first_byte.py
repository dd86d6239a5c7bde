# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: first-byte-only
# story: an element lies in one sector
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    return len({i * element_bytes // 32 for i in indexes})
