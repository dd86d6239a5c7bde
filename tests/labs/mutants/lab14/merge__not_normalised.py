# mutant: infero.kernels.steps.attention.merge
# diagnosis: not-normalised
# story: subtracts the maximum and forgets to divide
#| exercise: infero.kernels.steps.attention.merge
def merge(out, lse, more, more_lse):
    m = torch.maximum(lse, more_lse)
    a, b = (lse - m).exp(), (more_lse - m).exp()
    return out * a[:, None] + more * b[:, None], m + (a + b).log()
