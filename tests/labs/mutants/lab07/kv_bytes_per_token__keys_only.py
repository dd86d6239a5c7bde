# mutant: infero.cache.memory.kv_bytes_per_token
# diagnosis: keys-only
# story: forgets that values are kept too
#| exercise: infero.cache.memory.kv_bytes_per_token
def kv_bytes_per_token(config, bytes_per_element=2):
    c = config
    return c.num_layers * c.num_kv_heads * c.head_dim * bytes_per_element
