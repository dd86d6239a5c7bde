# mutant: infero.quant.affine.quantize
# diagnosis: no-clamp
# story: does not clamp
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round() + zero).to(torch.int64).to(torch.uint8)
