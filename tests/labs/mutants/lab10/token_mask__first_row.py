# mutant: infero.sampling.token_mask
# diagnosis: first-row
# story: masks every row with the first
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    vocab = logits.shape[-1]
    bits = torch.arange(32, device=bitmask.device, dtype=torch.int32)
    allowed = ((bitmask[:, :, None] >> bits) & 1).flatten(1)[:, :vocab]
    return logits.masked_fill(allowed[:1] == 0, -math.inf)
