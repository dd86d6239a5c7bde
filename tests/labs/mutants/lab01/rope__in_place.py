# mutant: infero.model.rope
# diagnosis: mutates-input
# story: overwrites the first half before using it
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)

    a, b = x.chunk(2, dim=-1)
    a.copy_(a * cos - b * sin)
    b.copy_(b * cos + a * sin)
    return x
