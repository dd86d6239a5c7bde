# mutant: infero.roofline.kv_bytes
# diagnosis: always-two-bytes
# story: two bytes a number, always
#| exercise: infero.roofline.kv_bytes
def kv_bytes(config, batch, new, context, kv_bits=16):
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 2
    return batch * (new + context) * per_token
