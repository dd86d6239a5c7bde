# mutant: infero.compress.wanda.scores
# diagnosis: both-squared
# story: the squared score
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.float() ** 2 * mean_square.float()
