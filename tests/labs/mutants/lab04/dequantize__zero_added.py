# mutant: infero.quant.affine.dequantize
# diagnosis: zero-added
# story: adds the zero point
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return (values.float() + zero) * scale
