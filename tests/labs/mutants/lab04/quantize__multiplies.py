# mutant: infero.quant.affine.quantize
# diagnosis: multiplies
# story: multiplies by the scale
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() * scale).round() + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
