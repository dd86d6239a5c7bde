# mutant: infero.quant.blocks.join_nibbles
# diagnosis: no-shift
# story: forgets the shift
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[..., :16] | codes[..., 16:]
