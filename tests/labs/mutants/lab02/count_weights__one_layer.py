# mutant: infero.roofline.count_weights
# diagnosis: one-layer
# story: forgot that there are many layers
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    q = config.num_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    return hidden * (2 * q + 2 * kv + 3 * config.intermediate_size), config.vocab_size * hidden
