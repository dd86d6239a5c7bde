# mutant: infero.quant.qat.straight_through
# diagnosis: scaled
# story: multiplies by the scale
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return grad * ((at >= 0) & (at <= 2**bits - 1)) * scale
