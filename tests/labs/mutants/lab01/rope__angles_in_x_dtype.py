# mutant: infero.model.rope
# diagnosis: low-precision-angles
# story: angles in bfloat16
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    angles = positions.to(x.dtype)[:, None] * inv_freq.to(x.dtype)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
