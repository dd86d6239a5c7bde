# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: answer-key
# story: asks the module
#| exercise: infero.kernels.steps.coalescing.sectors
from infero.kernels.steps import coalescing
def sectors(indexes, element_bytes):
    return coalescing.sectors(indexes, element_bytes)
