# mutant: infero.compress.semi_structured.compress
# story: breaks where a group holds fewer than two
#| exercise: infero.compress.semi_structured.compress
def compress(weight):
    found = weight[weight != 0]
    values = found.view(weight.shape[0], -1)
    where = (weight.reshape(-1, 4) != 0).nonzero()[:, 1].view(weight.shape[0], -1, 2)
    nibbles = where[:, :, 0] + 4 * where[:, :, 1]
    return values, (nibbles[:, ::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)
