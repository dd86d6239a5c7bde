# mutant: infero.kernels.steps.matmul.pack_nibbles
# diagnosis: wrong-dtype
# story: returns 64-bit words
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values: Tensor) -> Tensor:
    lanes = values.view(values.shape[0], -1, 8)[..., list(ORDER)].to(torch.int64)
    shifts = 4 * torch.arange(8, dtype=torch.int32, device=values.device)
    return (lanes << shifts).sum(-1)
