# mutant: infero.sampling.token_mask
# diagnosis: sign-bit
# story: compares with a power of two in int32
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    vocab = logits.shape[-1]
    bits = torch.arange(32, device=bitmask.device, dtype=torch.int32)
    allowed = ((bitmask[:, :, None] & (1 << bits)) > 0).int().flatten(1)[:, :vocab]
    return logits.masked_fill(allowed == 0, -math.inf)
