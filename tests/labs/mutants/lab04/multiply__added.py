# mutant: infero.quant.int8.multiply
# diagnosis: scales-added
# story: adds the scales
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.int() @ values.int().T).float() * (token_scales[:, None] + scales)
