# mutant: infero.quant.affine.dequantize
# diagnosis: divides
# story: divides by the scale
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return (values.float() - zero) / scale
