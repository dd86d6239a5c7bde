# mutant: infero.roofline.count_weights
# diagnosis: tied-head
# story: a tied head costs nothing to store, so it was not counted
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    q = config.num_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    layer = hidden * (2 * q + 2 * kv + 3 * config.intermediate_size)
    head = 0 if config.tie_embeddings else config.vocab_size * hidden
    return config.num_layers * layer, head
