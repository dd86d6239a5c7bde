# mutant: infero.model.rms_norm
# diagnosis: mutates-input
# story: scales the caller's tensor
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    x *= torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps).to(x.dtype)
    return x * weight
