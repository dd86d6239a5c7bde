# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: counts-elements
# story: takes 32 for elements
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    return len({i // 32 for i in indexes})
