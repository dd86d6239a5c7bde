# mutant: infero.quant.affine.quantize
# diagnosis: clamps-signed
# story: clamps as if signed
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
