# mutant: infero.model.rms_norm
# diagnosis: not-squared
# story: takes the mean of x, not of its square
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
