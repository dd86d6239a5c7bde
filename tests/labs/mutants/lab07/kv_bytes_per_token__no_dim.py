# mutant: infero.cache.memory.kv_bytes_per_token
# diagnosis: no-head-dim
# story: forgets head_dim
#| exercise: infero.cache.memory.kv_bytes_per_token
def kv_bytes_per_token(config, bytes_per_element=2):
    c = config
    return 2 * c.num_layers * c.num_kv_heads * bytes_per_element
