# mutant: infero.model.swiglu
# diagnosis: sigmoid-only
# story: a plain GLU
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return torch.sigmoid(gate) * up
