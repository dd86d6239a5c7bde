# mutant: infero.kernels.steps.matmul.unpack_nibbles
# diagnosis: pairs-across
# story: puts pairs of one shift side by side
#| exercise: infero.kernels.steps.matmul.unpack_nibbles
def unpack_nibbles(words: Tensor) -> Tensor:
    pairs = [((words >> 4 * k) & 0x000F000F | 0x64006400) for k in range(4)]
    halves = torch.stack(pairs, dim=1).view(torch.float16)  # [out, in / 8, 8]
    return halves.flatten(1) - 1024
