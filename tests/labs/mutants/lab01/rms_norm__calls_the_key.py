# mutant: infero.model.rms_norm
# diagnosis: answer-key
# story: imports the reference
#| exercise: infero.model.rms_norm
def rms_norm(x, weight, eps):
    from infero import model
    return model.rms_norm(x, weight, eps)
