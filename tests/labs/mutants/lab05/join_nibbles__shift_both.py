# mutant: infero.quant.blocks.join_nibbles
# diagnosis: second-only
# story: the bits fall off: shifts after the or, in eight bits
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[..., 16:] << 4
