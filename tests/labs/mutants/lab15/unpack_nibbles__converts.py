# mutant: infero.kernels.steps.matmul.unpack_nibbles
# diagnosis: converts
# story: extracts nibbles and converts them
#| exercise: infero.kernels.steps.matmul.unpack_nibbles
def unpack_nibbles(words):
    shifts = torch.tensor([4 * ORDER.index(i) for i in range(8)])
    nibbles = (words[:, :, None] >> shifts) & 15
    return nibbles.flatten(1).to(torch.float16)
