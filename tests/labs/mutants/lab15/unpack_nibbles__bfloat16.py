# mutant: infero.kernels.steps.matmul.unpack_nibbles
# diagnosis: wrong-dtype
# story: views as bfloat16
#| exercise: infero.kernels.steps.matmul.unpack_nibbles
def unpack_nibbles(words: Tensor) -> Tensor:
    pairs = [((words >> 4 * k) & 0x000F000F | 0x43004300) for k in range(4)]
    halves = torch.stack(pairs, dim=-1).view(torch.bfloat16)  # [out, in / 8, 8]
    return halves.flatten(1) - 128
