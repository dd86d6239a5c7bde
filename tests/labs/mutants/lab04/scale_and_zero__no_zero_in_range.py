# mutant: infero.quant.affine.scale_and_zero
# diagnosis: no-zero-in-range
# story: the range is taken as it is
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    low, high = low.float(), high.float()
    scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2 ** bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, (-low / scale).round().clamp(0, 2 ** bits - 1)
