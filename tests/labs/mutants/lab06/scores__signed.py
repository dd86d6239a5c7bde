# mutant: infero.compress.wanda.scores
# diagnosis: missing-abs
# story: keeps the sign
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.float() * mean_square.float().sqrt()
