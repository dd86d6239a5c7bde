# mutant: infero.quant.affine.quantize
# diagnosis: low-precision
# story: divides in bfloat16
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x / scale).round() + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
