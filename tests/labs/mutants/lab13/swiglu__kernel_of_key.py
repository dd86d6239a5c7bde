# mutant: infero.kernels.steps.elementwise.swiglu
# diagnosis: answer-key
# story: launches the reference's kernel
#| exercise: infero.kernels.steps.elementwise.swiglu
from infero.kernels.steps import elementwise
def swiglu(gate, up):
    tokens, n = gate.shape
    out = torch.empty(tokens, n, dtype=gate.dtype, device=gate.device)
    elementwise.swiglu_kernel[(tokens, triton.cdiv(n, 1024))](gate, up, out, n, gate.stride(0), BLOCK=1024)
    return out
