# mutant: infero.model.rms_norm
# diagnosis: missing-root
# story: divides by the mean square
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide / (wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
