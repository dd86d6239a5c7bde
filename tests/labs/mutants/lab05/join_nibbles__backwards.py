# mutant: infero.quant.blocks.join_nibbles
# diagnosis: reversed
# story: the second half runs backwards
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[..., :16] | codes.flip(-1)[..., :16] << 4
