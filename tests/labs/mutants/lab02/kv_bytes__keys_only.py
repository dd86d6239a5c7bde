# mutant: infero.roofline.kv_bytes
# diagnosis: keys-only
# story: forgot the values
#| exercise: infero.roofline.kv_bytes
def kv_bytes(config, batch, new, context, kv_bits=16):
    per_token = config.num_layers * config.num_kv_heads * config.head_dim * kv_bits / 8
    return batch * (new + context) * per_token
