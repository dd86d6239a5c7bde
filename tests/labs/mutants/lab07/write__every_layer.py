# mutant: infero.cache.kv.write
# diagnosis: every-layer
# story: writes to every layer
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[:, slots] = k
    cache.v[:, slots] = v
