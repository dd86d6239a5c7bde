# mutant: infero.quant.affine.dequantize
# diagnosis: backwards
# story: zero - value
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return (zero - values.float()) * scale
