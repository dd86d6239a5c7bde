# mutant: infero.roofline.step_flops
# diagnosis: not-causal
# story: every query meets every key
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    sizes = config.num_layers * config.num_heads * config.head_dim
    pairs = new * context
    return 2 * batch * (new * layers + head) + 4 * batch * pairs * sizes
