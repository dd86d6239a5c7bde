# mutant: infero.kernels.steps.attention.merge
# diagnosis: mean-of-means
# story: takes the plain mean of the parts
#| exercise: infero.kernels.steps.attention.merge
def merge(out, lse, more, more_lse):
    return (out + more) / 2, torch.logaddexp(lse, more_lse)
