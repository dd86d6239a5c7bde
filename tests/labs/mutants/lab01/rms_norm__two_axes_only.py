# mutant: infero.model.rms_norm
# story: works on [tokens, hidden] but not on heads
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    tokens, hidden = x.shape
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(1, keepdim=True) + eps)).to(x.dtype) * weight
