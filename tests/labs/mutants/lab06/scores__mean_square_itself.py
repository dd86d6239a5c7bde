# mutant: infero.compress.wanda.scores
# diagnosis: missing-root
# story: forgets the root
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.float().abs() * mean_square.float()
