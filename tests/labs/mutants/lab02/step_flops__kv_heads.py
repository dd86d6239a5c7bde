# mutant: infero.roofline.step_flops
# diagnosis: kv-heads
# story: used the KV heads for the queries
#| exercise: infero.roofline.step_flops
def step_flops(config, weights, batch, new, context):
    layers, head = weights
    sizes = config.num_layers * config.num_kv_heads * config.head_dim
    pairs = new * context - new * (new - 1) / 2
    return 2 * batch * (new * layers + head) + 4 * batch * pairs * sizes
