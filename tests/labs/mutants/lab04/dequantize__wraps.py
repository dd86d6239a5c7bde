# mutant: infero.quant.affine.dequantize
# diagnosis: wraps
# story: subtracts in uint8
#| exercise: infero.quant.affine.dequantize
def dequantize(values, scale, zero):
    return (values - zero.to(torch.uint8)).float() * scale
