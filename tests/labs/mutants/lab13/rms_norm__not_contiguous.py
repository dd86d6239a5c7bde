# mutant: infero.kernels.steps.elementwise.rms_norm
# story: takes any x for contiguous
#| exercise: infero.kernels.steps.elementwise.rms_norm
@triton.jit
def rms_norm_kernel(x, weight, out, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < n
    values = tl.load(x + row * n + columns, mask=inside, other=0.0).to(tl.float32)
    mean_square = tl.sum(values * values) / n
    w = tl.load(weight + columns, mask=inside).to(tl.float32)
    tl.store(out + row * n + columns, values * tl.rsqrt(mean_square + eps) * w, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    n = x.shape[-1]
    rows = x.view(-1, n) if x.is_contiguous() else x
    out = torch.empty_like(rows)
    rms_norm_kernel[(len(rows),)](rows, weight, out, n, eps, BLOCK=triton.next_power_of_2(n))
    return out.view(x.shape)
