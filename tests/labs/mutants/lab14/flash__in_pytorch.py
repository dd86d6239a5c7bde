# mutant: infero.kernels.steps.attention.flash
# diagnosis: no-kernel
# story: does it in PyTorch
#| exercise: infero.kernels.steps.attention.flash
def flash(q, k, v, scale):
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1).transpose(0, 1).float() for t in (k, v))
    p = (q.transpose(0, 1).float() @ k.transpose(1, 2) * scale).softmax(-1)
    return (p @ v).transpose(0, 1).to(q.dtype)
