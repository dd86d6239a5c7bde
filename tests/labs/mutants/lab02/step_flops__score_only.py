# mutant: infero.roofline.step_flops
# diagnosis: score-only
# story: counted the scores and forgot the values
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    sizes = config.num_layers * config.num_heads * config.head_dim
    pairs = new * context - new * (new - 1) / 2
    return 2 * batch * (new * layers + head) + 2 * batch * pairs * sizes
