# mutant: infero.quant.affine.scale_and_zero
# diagnosis: symmetric-zero-computed
# story: works it out from low
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2 ** bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    if symmetric:
        return scale, (-low / scale).round()
    return scale, (-low / scale).round()
