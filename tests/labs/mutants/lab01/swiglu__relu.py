# mutant: infero.model.swiglu
# diagnosis: relu
# story: ReLU instead of SiLU
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    return F.relu(gate) * up
