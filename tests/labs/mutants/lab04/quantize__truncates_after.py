# mutant: infero.quant.affine.quantize
# diagnosis: truncates-after
# story: leaves the rounding to the conversion
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return (x.float() / scale + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
