# mutant: infero.kernels.steps.matmul.int4_matmul
# diagnosis: no-kernel
# story: unpacks in PyTorch and multiplies there
#| exercise: infero.kernels.steps.matmul.int4_matmul
def int4_matmul(x, words, scales, zeros):
    weight = dequantize(Int4(words, scales, zeros), x.dtype)
    return x @ weight.T
