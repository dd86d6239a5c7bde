# mutant: infero.roofline.step_flops
# diagnosis: multiply-only
# story: counted multiply-adds as one operation
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    sizes = config.num_layers * config.num_heads * config.head_dim
    pairs = new * context - new * (new - 1) / 2
    return batch * (new * layers + head) + 2 * batch * pairs * sizes
