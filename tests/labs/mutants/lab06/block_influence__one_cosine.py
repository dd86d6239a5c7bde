# mutant: infero.compress.structured.block_influence
# diagnosis: whole-tensor
# story: one cosine of everything
#| exercise: infero.compress.structured.block_influence
def block_influence(before, after):
    x, y = before.float().flatten(), after.float().flatten()
    return float(1 - (x @ y) / (x.norm() * y.norm()))
