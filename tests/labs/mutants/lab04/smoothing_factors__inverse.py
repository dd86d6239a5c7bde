# mutant: infero.quant.outliers.smoothing_factors
# diagnosis: inverse
# story: upside down
#| exercise: infero.quant.outliers.smoothing_factors
def smoothing_factors(activation_max, weight_max, alpha=0.5):
    a, w = activation_max.float(), weight_max.float()
    factors = w ** (1 - alpha) / a ** alpha
    return torch.where((a > 0) & (w > 0), factors, 1.0)
