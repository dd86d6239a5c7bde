# mutant: infero.quant.int8.multiply
# diagnosis: no-scales
# story: returns the sums
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.int() @ values.int().T).float()
