# mutant: infero.quant.int8.multiply
# diagnosis: no-token-scale
# story: forgets the tokens
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.int() @ values.int().T).float() * scales
