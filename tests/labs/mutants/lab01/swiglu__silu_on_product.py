# mutant: infero.model.swiglu
# diagnosis: silu-of-product
# story: silu of the product
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return F.silu(gate * up)
