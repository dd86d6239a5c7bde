# mutant: infero.kernels.steps.attention.blockwise
# diagnosis: whole-matrix
# story: makes all scores at once
#| exercise: infero.kernels.steps.attention.blockwise
def blockwise(q, k, v, scale, size):
    s = q.float() @ k.float().T * scale
    return s.softmax(dim=1) @ v.float(), s.logsumexp(dim=1)
