# mutant: infero.compress.wanda.scores
# diagnosis: low-precision
# story: multiplies in the weight's dtype
#| exercise: infero.compress.wanda.scores
def scores(weight, mean_square):
    return (weight.abs() * mean_square.to(weight.dtype).sqrt()).float()
