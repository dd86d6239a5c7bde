# mutant: infero.quant.qat.straight_through
# diagnosis: everywhere
# story: passes the gradient everywhere
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return grad.clone()
