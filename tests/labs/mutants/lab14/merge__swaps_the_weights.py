# mutant: infero.kernels.steps.attention.merge
# diagnosis: swapped-weights
# story: gives each part the other's weight
#| exercise: infero.kernels.steps.attention.merge
def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.logaddexp(lse, more_lse)
    base = both.where(both > -math.inf, 0.0)  # -inf minus -inf would be NaN
    share, rest = (lse - base).exp(), (more_lse - base).exp()
    return out * rest[:, None] + more * share[:, None], both
