# mutant: infero.kernels.steps.attention.combine
# diagnosis: lse-without-max
# story: forgets to add the maximum back
#| exercise: infero.kernels.steps.attention.combine
@triton.jit
def combine_kernel(parts, lses, out, lse, splits, dim, SPLITS: tl.constexpr, DIM: tl.constexpr):
    row = tl.program_id(0)
    split, features = tl.arange(0, SPLITS), tl.arange(0, DIM)
    part_lse = tl.load(lses + row * splits + split, mask=split < splits, other=float("-inf"))
    inside = (split[:, None] < splits) & (features[None, :] < dim)
    part = tl.load(parts + (row * splits + split[:, None]) * dim + features[None, :], mask=inside,
                   other=0.0)
    m = tl.max(part_lse, axis=0)
    seen = m > float("-inf")
    m = tl.where(seen, m, 0.0)  # nothing was seen: -inf minus -inf would be NaN
    weight = tl.exp(part_lse - m)
    total = tl.where(seen, tl.sum(weight, axis=0), 1.0)
    mean = tl.sum(part * weight[:, None], axis=0) / total
    log_sum = tl.where(seen, tl.log(total), float("-inf"))
    tl.store(out + row * dim + features, mean, mask=features < dim)
    tl.store(lse + row, log_sum)


def combine(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    requests, heads, splits, dim = out.shape
    whole, total = out.new_empty((requests, heads, dim)), lse.new_empty((requests, heads))
    combine_kernel[(requests * heads,)](
        out, lse, whole, total, splits, dim, SPLITS=triton.next_power_of_2(splits),
        DIM=triton.next_power_of_2(dim))
    return whole, total
