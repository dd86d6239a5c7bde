# mutant: infero.kernels.steps.matmul.pack_nibbles
# diagnosis: inverse-order
# story: applies the permutation the wrong way round
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values: Tensor) -> Tensor:
    lanes = values.view(values.shape[0], -1, 8)[..., [ORDER.index(i) for i in range(8)]].to(torch.int32)
    shifts = 4 * torch.arange(8, dtype=torch.int32, device=values.device)
    return (lanes << shifts).sum(-1, dtype=torch.int32)
