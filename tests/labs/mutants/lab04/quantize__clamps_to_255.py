# mutant: infero.quant.affine.quantize
# diagnosis: clamps-to-255
# story: 255 whatever the bits
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).round() + zero).clamp(0, 255).to(torch.uint8)
