# mutant: infero.cache.memory.kv_bytes_per_token
# story: derives head_dim from hidden_size
#| exercise: infero.cache.memory.kv_bytes_per_token
def kv_bytes_per_token(config, bytes_per_element=2):
    c = config
    return 2 * c.num_layers * c.num_kv_heads * (c.hidden_size // c.num_heads) * bytes_per_element
