# mutant: infero.quant.affine.quantize
# diagnosis: clamps-before-zero
# story: clamps before the zero point
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round().clamp(0, 2 ** bits - 1) + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
