# mutant: infero.quant.affine.quantize
# diagnosis: no-zero
# story: forgets the zero point
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return (x.float() / scale).round().clamp(0, 2 ** bits - 1).to(torch.uint8)
