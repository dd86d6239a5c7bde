# mutant: infero.compress.semi_structured.compress
# diagnosis: positions-not-ascending
# story: a missing value gets position 0
#| exercise: infero.compress.semi_structured.compress
def compress(weight):
    groups = weight.reshape(weight.shape[0], -1, 4)
    there = groups != 0
    first = there.to(torch.uint8).argmax(dim=2)
    second = 3 - there.flip(2).to(torch.uint8).argmax(dim=2)
    second = torch.where(there.any(dim=2), second, first)
    where = torch.stack((first, second), dim=2)
    values = groups.gather(2, where)
    values[:, :, 1] = torch.where(first == second, 0, values[:, :, 1])
    nibbles = first + 4 * second
    packed = (nibbles[:, ::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)
    return values.reshape(weight.shape[0], -1), packed
