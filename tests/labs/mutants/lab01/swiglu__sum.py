# mutant: infero.model.swiglu
# diagnosis: added
# story: adds instead of multiplying
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return F.silu(gate) + up
