# mutant: infero.cache.kv.write
# diagnosis: keys-twice
# story: stores the keys as values too
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer, slots] = k
    cache.v[layer, slots] = k
