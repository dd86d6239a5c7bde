# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: answer-key
# story: works it out from the efficiency
#| exercise: infero.kernels.steps.coalescing.sectors
from infero.kernels.steps import coalescing
def sectors(indexes, element_bytes):
    asked = len(set(indexes)) * element_bytes
    return round(asked / 32 / coalescing.efficiency(indexes, element_bytes))
