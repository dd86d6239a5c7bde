# mutant: infero.quant.outliers.smoothing_factors
# diagnosis: alpha-ignored
# story: always the root
#| exercise: infero.quant.outliers.smoothing_factors
def smoothing_factors(activation_max, weight_max, alpha=0.5):
    a, w = activation_max.float(), weight_max.float()
    factors = (a / w).sqrt()
    return torch.where((a > 0) & (w > 0), factors, 1.0)
