# mutant: infero.kernels.steps.attention.merge
# diagnosis: overflow
# story: takes exponentials of lse itself
#| exercise: infero.kernels.steps.attention.merge
def merge(out, lse, more, more_lse):
    a, b = lse.exp(), more_lse.exp()
    both = (a * out.T + b * more.T).T / (a + b)[:, None]
    return both, (a + b).log()
