# mutant: infero.model.rope
# diagnosis: interleaved
# story: pairs neighbours, as in the paper
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)

    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
