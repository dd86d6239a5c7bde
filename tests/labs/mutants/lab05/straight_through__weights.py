# mutant: infero.quant.qat.straight_through
# diagnosis: values
# story: returns the weight
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return x * ((at >= 0) & (at <= 2**bits - 1))
