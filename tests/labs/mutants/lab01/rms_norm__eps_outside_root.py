# mutant: infero.model.rms_norm
# diagnosis: eps-outside-root
# story: adds eps after the square root
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    wide = x.float()
    rms = wide.pow(2).mean(-1, keepdim=True).sqrt()
    return (wide / (rms + eps)).to(x.dtype) * weight
