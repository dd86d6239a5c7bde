# mutant: infero.compress.wanda.scores
# diagnosis: normalised
# story: divides by the sum of the row
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    found = weight.float().abs() * mean_square.float().sqrt()
    return found / weight.float().abs().sum(dim=1, keepdim=True)
