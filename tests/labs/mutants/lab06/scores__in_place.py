# mutant: infero.compress.wanda.scores
# diagnosis: mutates-input
# story: takes the absolute value in place
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return weight.abs_().float() * mean_square.float().sqrt()
