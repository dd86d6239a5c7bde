# mutant: infero.sampling.token_mask
# story: shifts without & 1
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    vocab = logits.shape[-1]
    bits = torch.arange(32, device=bitmask.device, dtype=torch.int32)
    allowed = ((bitmask[:, :, None] >> bits) % 2 > 0) & (bitmask[:, :, None] > 0).flatten(1)[:, :vocab]
    return logits.masked_fill(allowed == 0, -math.inf)
