# mutant: infero.compress.semi_structured.compress
# diagnosis: by-size
# story: values in the order of their size
#| exercise: infero.compress.semi_structured.compress
def compress(weight):
    groups = weight.reshape(weight.shape[0], -1, 4)
    where = groups.abs().argsort(dim=2, descending=True, stable=True)[:, :, :2]
    values = groups.gather(2, where).reshape(weight.shape[0], -1)
    nibbles = where[:, :, 0] + 4 * where[:, :, 1]
    return values, (nibbles[:, ::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)
