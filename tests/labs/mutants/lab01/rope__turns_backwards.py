# mutant: infero.model.rope
# diagnosis: backwards
# story: the sign of the sine is swapped
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)

    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)
