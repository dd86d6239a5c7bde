# mutant: infero.kernels.steps.elementwise.rms_norm
# diagnosis: no-kernel
# story: a kernel for show and PyTorch for the work
#| exercise: infero.kernels.steps.elementwise.rms_norm
@triton.jit
def rms_norm_kernel(x):
    pass

def rms_norm(x, weight, eps):
    rms_norm_kernel[(1,)](x)
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)
