# mutant: infero.quant.affine.quantize
# diagnosis: half-away
# story: rounds magnitudes
#| exercise: infero.quant.affine.quantize
def quantize(x, scale, zero, bits=8):
    return (x.float().sign() * (x.float().abs() / scale + 0.5).floor() + zero).clamp(0, 2 ** bits - 1).to(torch.uint8)
