# mutant: infero.kernels.steps.attention.merge
# diagnosis: lse-as-weight
# story: takes the logarithm itself for the weight
#| exercise: infero.kernels.steps.attention.merge
def merge(out, lse, more, more_lse):
    a, b = lse[:, None], more_lse[:, None]
    return (out * a + more * b) / (a + b), torch.logaddexp(lse, more_lse)
