# mutant: infero.compress.structured.block_influence
# diagnosis: squared-length
# story: divides by the square of the first length
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=-1) / x.norm(dim=-1) ** 2
    return float((1 - cosine).mean())
