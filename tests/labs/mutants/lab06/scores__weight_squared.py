# mutant: infero.compress.wanda.scores
# diagnosis: squared-weight
# story: squares one of the two
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.float() ** 2 * mean_square.float().sqrt()
