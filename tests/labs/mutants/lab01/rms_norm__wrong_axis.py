# mutant: infero.model.rms_norm
# diagnosis: wrong-axis
# story: averages over the tokens
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(0, keepdim=True) + eps)).to(x.dtype) * weight
