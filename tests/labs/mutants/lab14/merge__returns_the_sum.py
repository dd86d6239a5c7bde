# mutant: infero.kernels.steps.attention.merge
# diagnosis: sum-not-log
# story: returns the sum of the exponentials, not its logarithm
#| exercise: infero.kernels.steps.attention.merge
def merge(out, lse, more, more_lse):
    both = torch.logaddexp(lse, more_lse)
    mean = out * (lse - both).exp()[:, None] + more * (more_lse - both).exp()[:, None]
    return mean, both.exp()
