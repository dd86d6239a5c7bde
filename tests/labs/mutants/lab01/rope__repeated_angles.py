# mutant: infero.model.rope
# diagnosis: angles-interleaved
# story: rotate-half with neighbouring angles
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    angles = positions.float()[:, None] * inv_freq
    angles = angles.repeat_interleave(2, dim=-1)[:, None]
    a, b = x.chunk(2, dim=-1)
    return x * angles.cos().to(x.dtype) + torch.cat((-b, a), dim=-1) * angles.sin().to(x.dtype)
