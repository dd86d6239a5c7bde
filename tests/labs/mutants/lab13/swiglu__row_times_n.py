# mutant: infero.kernels.steps.elementwise.swiglu
# diagnosis: wrong-stride
# story: every row begins at row * n
#| exercise: infero.kernels.steps.elementwise.swiglu
@triton.jit
def swiglu_kernel(gate, up, out, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < n
    g = tl.load(gate + row * n + columns, mask=inside).to(tl.float32)
    u = tl.load(up + row * n + columns, mask=inside).to(tl.float32)
    tl.store(out + row * n + columns, g * tl.sigmoid(g) * u, mask=inside)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    tokens, n = gate.shape
    out = torch.empty(tokens, n, dtype=gate.dtype, device=gate.device)
    BLOCK = 1024
    grid = (tokens, triton.cdiv(n, BLOCK))
    swiglu_kernel[grid](gate, up, out, n, gate.stride(0), BLOCK=BLOCK)
    return out
