# mutant: infero.kernels.steps.attention.combine
# diagnosis: no-kernel
# story: does it in PyTorch
#| exercise: infero.kernels.steps.attention.combine
def combine(out, lse):
    w = lse.softmax(-1).nan_to_num()
    return (out * w[..., None]).sum(2), lse.logsumexp(-1)
