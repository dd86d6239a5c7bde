# mutant: infero.compress.wanda.scores
# diagnosis: magnitude
# story: the input does not enter
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.float().abs()
