# mutant: infero.quant.affine.scale_and_zero
# diagnosis: levels-off-by-one
# story: divides by the number of values
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / 2 ** bits
    scale = torch.where(scale > 0, scale, 1.0)
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, (-low / scale).round()
