# mutant: infero.model.swiglu
# diagnosis: missing-up
# story: forgets up
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return F.silu(gate)
