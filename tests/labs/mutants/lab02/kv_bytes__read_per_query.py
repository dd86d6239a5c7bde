# mutant: infero.roofline.kv_bytes
# diagnosis: read-per-query
# story: each new token reads the cache for itself
#| exercise: infero.roofline.kv_bytes
def kv_bytes(config, batch, new, context, kv_bits=16):
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * kv_bits / 8
    return batch * new * (1 + context) * per_token
