# mutant: infero.quant.qat.straight_through
# diagnosis: zero
# story: takes the true derivative of rounding
#| exercise: infero.quant.qat.straight_through
def straight_through(grad, x, scale, zero, bits):
    at = x / scale + zero
    return torch.zeros_like(grad)
