# mutant: infero.sampling.token_mask
# diagnosis: answer-key
# story: asks the reference
#| exercise: infero.sampling.token_mask
def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    from infero import sampling
    return sampling.token_mask(logits, bitmask)
