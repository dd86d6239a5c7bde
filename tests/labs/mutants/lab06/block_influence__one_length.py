# mutant: infero.compress.structured.block_influence
# diagnosis: one-length
# story: divides by one length
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=-1) / x.norm(dim=-1)
    return float((1 - cosine).mean())
