# mutant: infero.model.rms_norm
# diagnosis: low-precision-statistics
# story: rounds the root to bfloat16
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return x * scale.to(x.dtype) * weight
