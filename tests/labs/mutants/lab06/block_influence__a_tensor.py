# mutant: infero.compress.structured.block_influence
# diagnosis: not-a-float
# story: returns a tensor
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return (1 - cosine).mean()
