# mutant: infero.cache.memory.kv_bytes_per_token
# diagnosis: fixed-width
# story: always two bytes
#| exercise: infero.cache.memory.kv_bytes_per_token
def kv_bytes_per_token(config, bytes_per_element=2):
    c = config
    return 2 * c.num_layers * c.num_kv_heads * c.head_dim * 2
