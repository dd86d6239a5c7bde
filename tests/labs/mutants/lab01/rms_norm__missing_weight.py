# mutant: infero.model.rms_norm
# diagnosis: missing-weight
# story: never multiplies by the weight
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
