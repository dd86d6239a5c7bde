# mutant: infero.roofline.count_weights
# diagnosis: kv-as-queries
# story: gave keys and values as many heads as queries
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    q = config.num_heads * config.head_dim
    layer = hidden * (4 * q + 3 * config.intermediate_size)
    return config.num_layers * layer, config.vocab_size * hidden
