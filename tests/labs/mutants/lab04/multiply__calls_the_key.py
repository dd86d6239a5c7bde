# mutant: infero.quant.int8.multiply
# diagnosis: answer-key
# story: asks the engine
#| exercise: infero.quant.int8.multiply
def multiply(tokens, token_scales, values, scales):
    from infero.quant import int8
    return int8.multiply(tokens, token_scales, values, scales)
