# mutant: infero.quant.int8.multiply
# story: sums in float16
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.half() @ values.half().T).float() * token_scales[:, None] * scales
