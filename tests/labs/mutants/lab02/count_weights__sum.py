# mutant: infero.roofline.count_weights
# diagnosis: not-a-pair
# story: returned the total
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    q = config.num_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    layer = hidden * (2 * q + 2 * kv + 3 * config.intermediate_size)
    return config.num_layers * layer + config.vocab_size * hidden
