# mutant: infero.quant.int8.multiply
# story: scales on the wrong axes
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.int() @ values.int().T).float() * token_scales * scales[:, None]
