# mutant: infero.quant.int8.multiply
# diagnosis: no-row-scale
# story: forgets the rows
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.int() @ values.int().T).float() * token_scales[:, None]
