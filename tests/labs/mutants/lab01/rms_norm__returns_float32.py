# mutant: infero.model.rms_norm
# story: forgets to go back to x's dtype
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
