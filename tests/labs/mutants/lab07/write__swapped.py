# mutant: infero.cache.kv.write
# diagnosis: swapped
# story: keys and values exchanged
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer, slots] = v
    cache.v[layer, slots] = k
