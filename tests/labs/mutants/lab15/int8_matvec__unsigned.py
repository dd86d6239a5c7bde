# mutant: infero.kernels.steps.matmul.int8_matvec
# diagnosis: unsigned
# story: masks the byte, which loses the sign
#| exercise: infero.kernels.steps.matmul.int8_matvec
@triton.jit
def int8_matvec_kernel(x, values, scales, y, out, inner,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    token = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for start in range(0, inner, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        numbers = tl.load(x + token * inner + k, mask=k < inner, other=0.0).to(tl.float32)
        inside = (n[:, None] < out) & (k[None, :] < inner)
        w = tl.load(values + n[:, None] * inner + k[None, :], mask=inside, other=0)
        total += tl.sum((w.to(tl.int32) & 0xFF).to(tl.float32) * numbers[None, :], axis=1)
    scale = tl.load(scales + n, mask=n < out, other=0.0)
    tl.store(y + token * out + n, total * scale, mask=n < out)


def int8_matvec(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    (tokens, inner), out = x.shape, values.shape[0]
    y = x.new_empty(tokens, out)
    block_n, block_k = 16, 128 if x.device.type == "cpu" else 512
    grid = (triton.cdiv(out, block_n), tokens)
    int8_matvec_kernel[grid](x, values, scales, y, out, inner, block_n, block_k)
    return y
