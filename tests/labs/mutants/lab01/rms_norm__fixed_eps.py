# mutant: infero.model.rms_norm
# story: writes 1e-5 instead of the argument
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight
