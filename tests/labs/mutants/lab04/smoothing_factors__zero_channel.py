# mutant: infero.quant.outliers.smoothing_factors
# diagnosis: zero-channel
# story: a channel that never fires
#| exercise: infero.quant.outliers.smoothing_factors
def smoothing_factors(activation_max, weight_max, alpha=0.5):
    a, w = activation_max.float(), weight_max.float()
    factors = a ** alpha / w ** (1 - alpha)
    return factors
