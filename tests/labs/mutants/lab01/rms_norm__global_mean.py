# mutant: infero.model.rms_norm
# diagnosis: global-mean
# story: one mean for all tokens
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean() + eps)).to(x.dtype) * weight
