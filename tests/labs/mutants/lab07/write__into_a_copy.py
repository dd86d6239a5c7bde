# mutant: infero.cache.kv.write
# diagnosis: writes-into-a-copy
# story: indexing twice with a tensor writes into a copy
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer][slots].copy_(k)
    cache.v[layer][slots].copy_(v)
