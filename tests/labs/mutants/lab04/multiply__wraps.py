# mutant: infero.quant.int8.multiply
# diagnosis: wraps-int8
# story: sums in int8
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens @ values.T).float() * token_scales[:, None] * scales
