# mutant: infero.model.swiglu
# story: forgets to go back to the input's dtype
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return F.silu(gate.float()) * up.float()
