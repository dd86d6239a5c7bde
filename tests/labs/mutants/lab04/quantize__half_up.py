# mutant: infero.quant.affine.quantize
# diagnosis: half-up
# story: adds a half and floors
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale + 0.5).floor() + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
