# mutant: infero.quant.blocks.join_nibbles
# story: splits the first axis instead of the last
#| exercise: infero.quant.blocks.join_nibbles
def join_nibbles(codes):
    return codes[:16] | codes[16:] << 4
