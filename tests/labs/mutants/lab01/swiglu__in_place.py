# mutant: infero.model.swiglu
# diagnosis: mutates-input
# story: multiplies in place
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    gate *= torch.sigmoid(gate)
    return gate.mul_(up)
