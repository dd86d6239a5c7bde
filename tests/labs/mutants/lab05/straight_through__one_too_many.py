# mutant: infero.quant.qat.straight_through
# diagnosis: one-too-many
# story: the range is one level too long
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return grad * ((at >= 0) & (at <= 2**bits))
