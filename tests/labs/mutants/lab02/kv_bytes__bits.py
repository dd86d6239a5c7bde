# mutant: infero.roofline.kv_bytes
# diagnosis: bits-not-bytes
# story: forgot that eight bits are a byte
#| exercise: infero.roofline.kv_bytes
def kv_bytes(config, batch, new, context, kv_bits=16):
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * kv_bits
    return batch * (new + context) * per_token
