# mutant: infero.quant.blocks.decode_q4_1
# diagnosis: minimum-scaled
# story: takes the minimum for a code
#| exercise: infero.quant.blocks.decode_q4_1
def decode_q4_1(data):
    blocks = data.contiguous().unflatten(-1, (-1, 20))
    head = blocks[..., :4].contiguous().view(torch.float16).float()
    pairs = blocks[..., 4:]
    codes = torch.cat((pairs & 15, pairs >> 4), dim=-1).float()
    return (head[..., :1] * (codes + head[..., 1:])).flatten(-2)
