# mutant: infero.roofline.count_weights
# diagnosis: hidden-squared
# story: took heads * dim for hidden
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    kv = config.num_kv_heads * config.head_dim
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * config.intermediate_size
    return config.num_layers * layer, config.vocab_size * hidden
