# mutant: infero.kernels.steps.matmul.pack_nibbles
# diagnosis: sign-lost
# story: clamps to int32 before converting
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values: Tensor) -> Tensor:
    lanes = values.view(values.shape[0], -1, 8)[..., list(ORDER)].to(torch.int64)
    shifts = 4 * torch.arange(8, dtype=torch.int64, device=values.device)
    return (lanes << shifts).sum(-1).clamp(max=2**31 - 1).to(torch.int32)
