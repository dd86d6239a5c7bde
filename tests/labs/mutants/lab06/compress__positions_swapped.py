# mutant: infero.compress.semi_structured.compress
# diagnosis: position-order
# story: the second position goes below
#| exercise: infero.compress.semi_structured.compress
def compress(weight):
    groups = weight.reshape(weight.shape[0], -1, 4)
    order = (groups == 0).to(torch.uint8).argsort(dim=2, stable=True)
    where = order[:, :, :2].sort(dim=2).values
    values = groups.gather(2, where).reshape(weight.shape[0], -1)
    nibbles = 4 * where[:, :, 0] + where[:, :, 1]
    return values, (nibbles[:, ::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)
