# mutant: infero.quant.qat.straight_through
# diagnosis: no-scale
# story: compares the weight itself
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    at = x + zero
    return grad * ((at >= 0) & (at <= 2**bits - 1))
