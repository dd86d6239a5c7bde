# mutant: infero.quant.int8.multiply
# story: no transpose
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.int() @ values.int()).float() * token_scales[:, None] * scales
