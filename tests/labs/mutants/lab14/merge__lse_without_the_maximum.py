# mutant: infero.kernels.steps.attention.merge
# diagnosis: lse-without-max
# story: forgets to add the maximum back
#| exercise: infero.kernels.steps.attention.merge
def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.logaddexp(lse, more_lse)
    base = both.where(both > -math.inf, 0.0)  # -inf minus -inf would be NaN
    share, rest = (lse - base).exp(), (more_lse - base).exp()
    return out * share[:, None] + more * rest[:, None], both - torch.maximum(lse, more_lse)
