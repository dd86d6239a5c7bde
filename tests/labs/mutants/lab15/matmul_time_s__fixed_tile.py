# mutant: infero.kernels.steps.matmul.matmul_time_s
# diagnosis: fixed-tile
# story: tile of 64 always
#| exercise: infero.kernels.steps.matmul.matmul_time_s
def matmul_time_s(tokens: int, weights: float, bits: float, instructions: float, card: Card,
                  tile: int = 64) -> float:
    memory_s = weights * bits / 8 / card.bandwidth_bytes_per_s
    tensor_s = 2 * tokens * weights / card.flops_per_s
    unpack_s = math.ceil(tokens / 64) * weights * instructions / card.instructions_per_s
    return max(memory_s, tensor_s, unpack_s)
