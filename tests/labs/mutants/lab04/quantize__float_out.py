# mutant: infero.quant.affine.quantize
# diagnosis: wrong-dtype
# story: returns floats
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round() + zero).clamp(0, 2 ** bits - 1)
