# mutant: infero.roofline.step_flops
# diagnosis: context-squared-half
# story: took context squared over two, as for a prefill
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    sizes = config.num_layers * config.num_heads * config.head_dim
    pairs = context * context / 2
    return 2 * batch * (new * layers + head) + 4 * batch * pairs * sizes
