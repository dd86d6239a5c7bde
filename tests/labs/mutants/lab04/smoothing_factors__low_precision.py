# mutant: infero.quant.outliers.smoothing_factors
# diagnosis: wrong-dtype
# story: stays in bfloat16
#| exercise: infero.quant.outliers.smoothing_factors
def smoothing_factors(activation_max, weight_max, alpha=0.5):
    a, w = activation_max, weight_max
    return torch.where((a > 0) & (w > 0), a ** alpha / w ** (1 - alpha), 1.0)
