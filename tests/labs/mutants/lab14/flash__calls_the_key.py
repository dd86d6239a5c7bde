# mutant: infero.kernels.steps.attention.flash
# diagnosis: answer-key
# story: launches the reference's wrapper
#| exercise: infero.kernels.steps.attention.flash
def flash(q, k, v, scale):
    from infero.kernels.steps import attention
    return attention.flash(q, k, v, scale)
