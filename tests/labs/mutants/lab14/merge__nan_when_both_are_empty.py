# mutant: infero.kernels.steps.attention.merge
# diagnosis: empty-and-empty
# story: -inf minus -inf where neither part saw anything
#| exercise: infero.kernels.steps.attention.merge
def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.logaddexp(lse, more_lse)
    base = both.where(both > -math.inf, 0.0)  # -inf minus -inf would be NaN
    share, rest = (lse - both).exp(), (more_lse - both).exp()
    return out * share[:, None] + more * rest[:, None], both
