# mutant: infero.roofline.count_weights
# diagnosis: two-mlp-matrices
# story: an MLP with an up and a down matrix only
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    q = config.num_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    layer = hidden * (2 * q + 2 * kv + 2 * config.intermediate_size)
    return config.num_layers * layer, config.vocab_size * hidden
