# mutant: infero.model.rms_norm
# diagnosis: mean-absolute
# story: divides by the mean absolute value
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide / (wide.abs().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
