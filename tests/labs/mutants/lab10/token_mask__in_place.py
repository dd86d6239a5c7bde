# mutant: infero.sampling.token_mask
# diagnosis: mutates-input
# story: writes into the logits
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    vocab = logits.shape[-1]
    bits = torch.arange(32, device=bitmask.device, dtype=torch.int32)
    allowed = ((bitmask[:, :, None] >> bits) & 1).flatten(1)[:, :vocab]
    return logits.masked_fill_(allowed == 0, -math.inf)
