# mutant: infero.compress.wanda.scores
# diagnosis: divides
# story: divides by the input's size
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.float().abs() / mean_square.float().sqrt()
