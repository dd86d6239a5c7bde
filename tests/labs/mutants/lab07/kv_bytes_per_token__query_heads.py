# mutant: infero.cache.memory.kv_bytes_per_token
# diagnosis: query-heads
# story: counts query heads
#| exercise: infero.cache.memory.kv_bytes_per_token
def kv_bytes_per_token(config, bytes_per_element=2):
    c = config
    return 2 * c.num_layers * c.num_heads * c.head_dim * bytes_per_element
