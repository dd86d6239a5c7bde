# mutant: infero.kernels.steps.matmul.pack_nibbles
# story: shifts inside uint8, where the bits fall off
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values: Tensor) -> Tensor:
    lanes = values.view(values.shape[0], -1, 8)[..., list(ORDER)]
    shifts = 4 * torch.arange(8, dtype=torch.uint8, device=values.device)
    return (lanes << shifts).sum(-1, dtype=torch.int32)
