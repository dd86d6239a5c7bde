# mutant: infero.quant.qat.straight_through
# diagnosis: no-zero
# story: forgets the zero point
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    at = x / scale
    return grad * ((at >= 0) & (at <= 2**bits - 1))
