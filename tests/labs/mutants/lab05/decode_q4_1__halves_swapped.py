# mutant: infero.quant.blocks.decode_q4_1
# diagnosis: halves-swapped
# story: reads the high halves first
#| exercise: infero.quant.blocks.decode_q4_1
def decode_q4_1(data):
    blocks = data.contiguous().unflatten(-1, (-1, 20))
    head = blocks[..., :4].contiguous().view(torch.float16).float()
    pairs = blocks[..., 4:]
    codes = torch.cat((pairs >> 4, pairs & 15), dim=-1).float()
    return (head[..., :1] * codes + head[..., 1:]).flatten(-2)
