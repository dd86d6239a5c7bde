# mutant: infero.quant.blocks.join_nibbles
# diagnosis: wrong-dtype
# story: returns int32
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[..., :16].int() | codes[..., 16:].int() << 4
