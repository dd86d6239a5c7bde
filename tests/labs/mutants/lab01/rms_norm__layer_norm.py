# mutant: infero.model.rms_norm
# diagnosis: layer-norm
# story: subtracts the mean, as LayerNorm does
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    centred = wide - wide.mean(-1, keepdim=True)
    return (centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
