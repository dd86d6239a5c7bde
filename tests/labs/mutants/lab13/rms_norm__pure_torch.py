# mutant: infero.kernels.steps.elementwise.rms_norm
# diagnosis: no-kernel
# story: PyTorch, no kernel
#| exercise: infero.kernels.steps.elementwise.rms_norm
def rms_norm(x, weight, eps):
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)
