# mutant: infero.model.swiglu
# diagnosis: overflow
# story: exp(gate) overflows for large gates
#| exercise: infero.model.swiglu
def swiglu(gate, up):
    e = torch.exp(gate)
    return gate * e / (1 + e) * up
