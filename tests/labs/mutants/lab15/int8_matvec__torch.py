# mutant: infero.kernels.steps.matmul.int8_matvec
# diagnosis: no-kernel
# story: does it in PyTorch
#| exercise: infero.kernels.steps.matmul.int8_matvec
def int8_matvec(x, values, scales):
    return (x.float() @ (values.float() * scales[:, None]).T).to(x.dtype)
