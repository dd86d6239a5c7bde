# mutant: infero.kernels.steps.elementwise.rope
# diagnosis: no-kernel
# story: PyTorch, no kernel
#| exercise: infero.kernels.steps.elementwise.rope
def rope(x, positions, inv_freq):
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
