# mutant: infero.quant.int8.multiply
# diagnosis: wraps-int16
# story: sums in int16
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    return (tokens.to(torch.int16) @ values.to(torch.int16).T).float() * token_scales[:, None] * scales
