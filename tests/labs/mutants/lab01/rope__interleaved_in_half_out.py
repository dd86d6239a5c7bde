# mutant: infero.model.rope
# diagnosis: pairing-mixed
# story: takes neighbours, writes halves
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)

    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
