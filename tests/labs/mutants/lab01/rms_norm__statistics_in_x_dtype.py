# mutant: infero.model.rms_norm
# diagnosis: low-precision-statistics
# story: mean of squares in bfloat16
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
