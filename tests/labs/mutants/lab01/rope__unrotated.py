# mutant: infero.model.rope
# diagnosis: not-rotated
# story: returns its input
#| exercise: infero.model.rope
def rope(x, positions, inv_freq):
    return x.clone()
