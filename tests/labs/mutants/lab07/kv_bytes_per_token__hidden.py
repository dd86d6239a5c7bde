# mutant: infero.cache.memory.kv_bytes_per_token
# diagnosis: hidden-size
# story: takes hidden_size for the width of the keys
#| exercise: infero.cache.memory.kv_bytes_per_token
def kv_bytes_per_token(config, bytes_per_element=2):
    c = config
    return 2 * c.num_layers * c.hidden_size * bytes_per_element
