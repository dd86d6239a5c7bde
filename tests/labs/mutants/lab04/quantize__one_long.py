# mutant: infero.quant.affine.quantize
# story: ends one value late
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round() + zero).clamp(0, 2 ** bits).to(torch.uint8)
