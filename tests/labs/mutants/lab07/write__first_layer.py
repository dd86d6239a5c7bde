# mutant: infero.cache.kv.write
# diagnosis: first-layer
# story: writes to layer 0
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[0, slots] = k
    cache.v[0, slots] = v
