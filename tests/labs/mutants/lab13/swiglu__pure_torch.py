# mutant: infero.kernels.steps.elementwise.swiglu
# diagnosis: no-kernel
# story: PyTorch, no kernel
#| exercise: infero.kernels.steps.elementwise.swiglu
def swiglu(gate, up):
    return torch.nn.functional.silu(gate) * up
