# mutant: infero.kernels.steps.matmul.unpack_nibbles
# diagnosis: converts
# story: stores integers into a float tensor
#| exercise: infero.kernels.steps.matmul.unpack_nibbles
def unpack_nibbles(words):
    out = words.new_empty(len(words), words.shape[1], 8, dtype=torch.float16)
    for i in range(8):
        out[:, :, i] = (words >> 4 * ORDER.index(i)) & 15
    return out.flatten(1)
