# mutant: infero.quant.blocks.join_nibbles
# diagnosis: high-first
# story: puts the first half of the codes on top
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[..., :16] << 4 | codes[..., 16:]
