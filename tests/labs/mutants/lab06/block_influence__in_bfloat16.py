# mutant: infero.compress.structured.block_influence
# diagnosis: low-precision
# story: works in the dtype of the states
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before, after
    cosine = (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return float((1 - cosine).mean())
