# mutant: infero.quant.affine.dequantize
# diagnosis: scale-first
# story: multiplies first
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return values.float() * scale - zero
