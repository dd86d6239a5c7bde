# mutant: infero.cache.kv.write
# diagnosis: slots-ignored
# story: writes into the first slots
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    n = len(slots)
    cache.k[layer, :n] = k
    cache.v[layer, :n] = v
