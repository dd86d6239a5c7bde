# mutant: infero.kernels.steps.attention.blockwise
# diagnosis: not-divided
# story: returns the accumulator
#| exercise: infero.kernels.steps.attention.blockwise
def blockwise(q: Tensor, k: Tensor, v: Tensor, scale: float, size: int) -> tuple[Tensor, Tensor]:
    q = q.float()
    m = torch.full_like(q[:, 0], -math.inf)  # running maximum of each query's scores
    total = torch.zeros_like(m)  # running sum of exp(score - m)
    acc = torch.zeros_like(q)  # running sum of exp(score - m) * value
    for keys, values in zip(k.split(size), v.split(size), strict=True):
        s = q @ keys.float().T * scale
        new_m = torch.maximum(m, s.amax(dim=1))
        p = torch.exp(s - new_m[:, None])
        shrink = torch.exp(m - new_m)
        total = total * shrink + p.sum(dim=1)
        acc = acc * shrink[:, None] + p @ values.float()
        m = new_m
    return acc, m + total.log()
