# mutant: infero.quant.qat.straight_through
# diagnosis: lower-end
# story: tests the upper end only
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return grad * (at <= 2**bits - 1)
