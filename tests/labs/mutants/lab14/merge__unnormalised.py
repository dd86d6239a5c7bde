# mutant: infero.kernels.steps.attention.merge
# diagnosis: unnormalised
# story: adds the weighted values and does not divide
#| exercise: infero.kernels.steps.attention.merge
def merge(out, lse, more, more_lse):
    a, b = lse.exp(), more_lse.exp()
    return out * a[:, None] + more * b[:, None], (a + b).log()
