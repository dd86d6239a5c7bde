# mutant: infero.compress.structured.block_influence
# diagnosis: similarity
# story: forgets to subtract from 1
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return float(cosine.mean())
