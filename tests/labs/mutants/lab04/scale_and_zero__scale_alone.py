# mutant: infero.quant.affine.scale_and_zero
# diagnosis: wrong-type
# story: forgets the zero point
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    return (high - low) / (2 ** bits - 1)
