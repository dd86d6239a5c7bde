# mutant: infero.quant.affine.dequantize
# diagnosis: no-zero
# story: forgets the zero point
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return values.float() * scale
