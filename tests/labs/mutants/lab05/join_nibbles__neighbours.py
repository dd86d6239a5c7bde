# mutant: infero.quant.blocks.join_nibbles
# diagnosis: neighbours
# story: packs codes 2j and 2j + 1
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[..., 0::2] | codes[..., 1::2] << 4
