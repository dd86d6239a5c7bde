# mutant: infero.model.swiglu
# diagnosis: gelu
# story: GELU instead of SiLU
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return F.gelu(gate) * up
