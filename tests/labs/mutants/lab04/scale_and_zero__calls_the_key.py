# mutant: infero.quant.affine.scale_and_zero
# diagnosis: answer-key
# story: asks the engine
#| exercise: infero.quant.affine.scale_and_zero
def scale_and_zero(low, high, bits=8, symmetric=False):
    from infero.quant import affine
    return affine.scale_and_zero(low, high, bits, symmetric)
