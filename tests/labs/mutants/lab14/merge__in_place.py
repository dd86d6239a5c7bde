# mutant: infero.kernels.steps.attention.merge
# diagnosis: mutates-input
# story: works in the tensors that it was given
#| exercise: infero.kernels.steps.attention.merge
def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.logaddexp(lse, more_lse)
    base = both.where(both > -math.inf, 0.0)  # -inf minus -inf would be NaN
    share, rest = (lse - base).exp(), (more_lse - base).exp()
    out *= share[:, None]
    out += more * rest[:, None]
    return out, both
