# mutant: infero.kernels.steps.matmul.int4_matmul
# diagnosis: out-of-bounds
# story: x loaded without a mask for the inputs
#| exercise: infero.kernels.steps.matmul.int4_matmul
@triton.jit
def int4_matmul_kernel(x, words, scales, zeros, y, tokens, out, inner, group,
                       BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WORDS: tl.constexpr):
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, inner // 8, WORDS):
        j = start + tl.arange(0, WORDS)  # words of a row; word j holds the inputs from 8 j on
        inside = (j[:, None] < inner // 8) & (n < out)
        word = tl.load(words + n * (inner // 8) + j[:, None], mask=inside, other=0)
        at = n * (inner // group) + 8 * j[:, None] // group
        zero = tl.load(zeros + at, mask=inside, other=0.0)
        scale = tl.load(scales + at, mask=inside, other=0.0)
        for p in tl.static_range(8):
            k = 8 * j[None, :] + 2 * (p % 4) + p // 4  # ORDER[p] = 2 (p % 4) + p // 4
            a = tl.load(x + m * inner + k, mask=m < tokens, other=0.0)
            nibble = (word >> 4 * p) & 0xF
            w = (nibble.to(tl.float32) - zero) * scale  # [WORDS, BLOCK_N]
            total = tl.dot(a, w.to(a.dtype), total, input_precision="ieee")
    tl.store(y + m * out + n, total, mask=(m < tokens) & (n < out))


def int4_matmul(x: Tensor, words: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    (tokens, inner), out = x.shape, words.shape[0]
    y = x.new_empty(tokens, out)
    block_m = min(64, max(16, triton.next_power_of_2(tokens)))
    grid = (triton.cdiv(out, 32), triton.cdiv(tokens, block_m))
    int4_matmul_kernel[grid](x, words, scales, zeros, y, tokens, out, inner,
                             inner // scales.shape[1], block_m, 32, 16)
    return y
