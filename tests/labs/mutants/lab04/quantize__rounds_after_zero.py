# mutant: infero.quant.affine.quantize
# diagnosis: rounds-after-zero
# story: adds the zero point first
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return (x.float() / scale + zero).round().clamp(0, 2 ** bits - 1).to(torch.uint8)
