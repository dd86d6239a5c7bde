# mutant: infero.quant.affine.scale_and_zero
# diagnosis: inverse
# story: returns 1 / scale
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    scale = (2 ** (bits - 1) - 1) / torch.maximum(-low, high) if symmetric else (2 ** bits - 1) / (high - low)
    scale = torch.where(scale.isfinite(), scale, 1.0)
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, (-low * scale).round()
