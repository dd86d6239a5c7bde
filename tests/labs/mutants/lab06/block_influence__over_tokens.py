# mutant: infero.compress.structured.block_influence
# diagnosis: wrong-axis
# story: cosines over the tokens
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=0) / (x.norm(dim=0) * y.norm(dim=0))
    return float((1 - cosine).mean())
