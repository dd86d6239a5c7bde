# mutant: infero.sampling.token_mask
# diagnosis: bytes-swapped
# story: big-endian bytes
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    vocab = logits.shape[-1]
    bits = torch.tensor([24 - 8 * (i // 8) + i % 8 for i in range(32)], dtype=torch.int32)
    allowed = ((bitmask[:, :, None] >> bits) & 1).flatten(1)[:, :vocab]
    return logits.masked_fill(allowed == 0, -math.inf)
