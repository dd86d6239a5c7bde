# mutant: infero.kernels.steps.matmul.pack_nibbles
# diagnosis: strided
# story: word j gets values in / 8 apart
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values: Tensor) -> Tensor:
    lanes = values.view(values.shape[0], 8, -1).transpose(1, 2)[..., list(ORDER)].to(torch.int32)
    shifts = 4 * torch.arange(8, dtype=torch.int32, device=values.device)
    return (lanes << shifts).sum(-1, dtype=torch.int32)
