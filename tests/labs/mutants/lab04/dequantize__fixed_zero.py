# mutant: infero.quant.affine.dequantize
# diagnosis: fixed-zero
# story: 128 for everyone
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return (values.float() - 128) * scale
