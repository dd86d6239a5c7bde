# mutant: infero.compress.structured.block_influence
# diagnosis: of-the-change
# story: compares with what the layer adds
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float() - before.float()
    cosine = (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return float((1 - cosine).mean())
