# mutant: infero.compress.structured.block_influence
# diagnosis: not-normalised
# story: does not divide by the lengths
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=-1)
    return float((1 - cosine).mean())
