# mutant: infero.cache.kv.write
# diagnosis: no-values
# story: forgets the values
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer, slots] = k
