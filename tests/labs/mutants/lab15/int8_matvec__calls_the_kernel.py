# mutant: infero.kernels.steps.matmul.int8_matvec
# diagnosis: answer-key
# story: launches the reference's kernel
#| exercise: infero.kernels.steps.matmul.int8_matvec
def int8_matvec(x, values, scales):
    from infero.kernels.steps import matmul

    y = x.new_empty(len(x), len(values))
    grid = (triton.cdiv(len(values), 16), len(x))
    matmul.int8_matvec_kernel[grid](x, values, scales, y, len(values), x.shape[1], 16, 128)
    return y
