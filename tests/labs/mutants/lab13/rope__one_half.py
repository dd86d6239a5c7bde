# mutant: infero.kernels.steps.elementwise.rope
# diagnosis: never-written
# story: only the first half is stored
#| exercise: infero.kernels.steps.elementwise.rope
@triton.jit
def rope_kernel(x, positions, inv_freq, out, heads, half, stride, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    pair = tl.arange(0, BLOCK)
    inside = pair < half
    angle = tl.load(positions + token).to(tl.float32) * tl.load(inv_freq + pair, mask=inside)
    cos, sin = tl.cos(angle), tl.sin(angle)
    source = x + token * stride + head * 2 * half + pair
    a = tl.load(source, mask=inside).to(tl.float32)
    b = tl.load(source + half, mask=inside).to(tl.float32)
    target = out + (token * heads + head) * 2 * half + pair
    tl.store(target, a * cos - b * sin, mask=inside)


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    tokens, heads, dim = x.shape
    out = torch.empty(tokens, heads, dim, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(dim // 2)
    rope_kernel[(tokens, heads)](x, positions, inv_freq, out, heads, dim // 2, x.stride(0),
                                 BLOCK=block)
    return out
