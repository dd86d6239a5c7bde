# mutant: infero.quant.affine.quantize
# diagnosis: clamps-one-short
# story: ends one value early
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round() + zero).clamp(0, 2 ** bits - 2).to(torch.uint8)
