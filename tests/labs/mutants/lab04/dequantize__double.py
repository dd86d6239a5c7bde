# mutant: infero.quant.affine.dequantize
# diagnosis: wrong-dtype
# story: returns float64
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return (values.double() - zero) * scale
