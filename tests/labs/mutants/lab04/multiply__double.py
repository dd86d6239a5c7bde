# mutant: infero.quant.int8.multiply
# diagnosis: wrong-dtype
# story: returns float64
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.double() @ values.double().T) * token_scales[:, None] * scales
