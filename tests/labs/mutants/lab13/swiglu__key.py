# mutant: infero.kernels.steps.elementwise.swiglu
# diagnosis: answer-key
# story: calls the reference
#| exercise: infero.kernels.steps.elementwise.swiglu
from infero.kernels.steps import elementwise

@triton.jit
def swiglu_kernel(x):
    pass

def swiglu(gate, up):
    swiglu_kernel[(1,)](gate)
    return elementwise.swiglu(gate, up)
