# mutant: infero.sampling.token_mask
# story: a word is allowed or not
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    vocab = logits.shape[-1]
    allowed = (bitmask != 0).repeat_interleave(32, dim=1)[:, :vocab]
    return logits.masked_fill(~allowed, -math.inf)
