# mutant: infero.roofline.step_flops
# diagnosis: new-only
# story: attention among the new tokens only, the cache forgotten
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    sizes = config.num_layers * config.num_heads * config.head_dim
    pairs = new * (new + 1) / 2
    return 2 * batch * (new * layers + head) + 4 * batch * pairs * sizes
