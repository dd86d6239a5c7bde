# mutant: infero.quant.outliers.smoothing_factors
# diagnosis: normalised
# story: scales the largest to 1
#| exercise: infero.quant.outliers.smoothing_factors
def smoothing_factors(activation_max, weight_max, alpha=0.5):
    a, w = activation_max.float(), weight_max.float()
    factors = a ** alpha / w ** (1 - alpha)
    return factors / factors.max()
