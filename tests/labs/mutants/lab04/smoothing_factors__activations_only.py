# mutant: infero.quant.outliers.smoothing_factors
# diagnosis: activations-only
# story: never looks at the weight
#| exercise: infero.quant.outliers.smoothing_factors
def smoothing_factors(activation_max, weight_max, alpha=0.5):
    a, w = activation_max.float(), weight_max.float()
    factors = a ** alpha
    return torch.where((a > 0) & (w > 0), factors, 1.0)
