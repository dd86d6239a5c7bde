# mutant: infero.model.swiglu
# diagnosis: silu-on-up
# story: the operands are swapped
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return gate * F.silu(up)
