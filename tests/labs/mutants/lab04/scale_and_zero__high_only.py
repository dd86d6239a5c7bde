# mutant: infero.quant.affine.scale_and_zero
# diagnosis: high-only
# story: looks at the high end alone
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    scale = high / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2 ** bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, (-low / scale).round()
