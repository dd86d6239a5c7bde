# mutant: infero.quant.affine.quantize
# diagnosis: truncates
# story: cuts off towards 0
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return ((x.float() / scale).trunc() + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
