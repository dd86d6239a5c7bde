# mutant: infero.kernels.steps.matmul.pack_nibbles
# story: packs only the first eight values of a row
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values: Tensor) -> Tensor:
    lanes = values[:, :8].view(values.shape[0], -1, 8)[..., list(ORDER)].to(torch.int32)
    shifts = 4 * torch.arange(8, dtype=torch.int32, device=values.device)
    return (lanes << shifts).sum(-1, dtype=torch.int32)
