# mutant: infero.model.rms_norm
# diagnosis: sum-not-mean
# story: divides by the norm, not by the root mean square
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).sum(-1, keepdim=True) + eps)).to(x.dtype) * weight
