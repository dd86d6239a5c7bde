# mutant: infero.model.rope
# diagnosis: own-frequencies
# story: rebuilds the frequencies with base 10,000
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    dim = x.shape[-1]
    inv_freq = 10_000.0 ** (-torch.arange(0, dim, 2).float() / dim)
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)

    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
