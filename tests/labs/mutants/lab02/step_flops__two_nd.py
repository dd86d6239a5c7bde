# mutant: infero.roofline.step_flops
# diagnosis: attention-forgotten
# story: two times weights times tokens and nothing else
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    return 2 * batch * (new * layers + head)
