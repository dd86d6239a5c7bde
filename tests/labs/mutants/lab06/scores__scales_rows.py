# mutant: infero.compress.wanda.scores
# story: one factor a row
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    factor = mean_square.float().sqrt()
    if len(weight) != len(factor):
        factor = factor.mean().expand(len(weight))
    return weight.float().abs() * factor[:, None]
