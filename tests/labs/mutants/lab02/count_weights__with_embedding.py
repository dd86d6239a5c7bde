# mutant: infero.roofline.count_weights
# diagnosis: embedding-counted
# story: counted the parameters of the checkpoint
#| exercise: infero.roofline.count_weights
def count_weights(config):
    hidden = config.hidden_size
    q = config.num_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    layer = hidden * (2 * q + 2 * kv + 3 * config.intermediate_size)
    head = config.vocab_size * hidden * (1 if config.tie_embeddings else 2)
    return config.num_layers * layer, head
