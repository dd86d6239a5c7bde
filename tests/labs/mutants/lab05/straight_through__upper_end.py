# mutant: infero.quant.qat.straight_through
# diagnosis: upper-end
# story: tests the lower end only
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return grad * (at >= 0)
