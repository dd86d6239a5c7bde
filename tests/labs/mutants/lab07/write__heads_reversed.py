# mutant: infero.cache.kv.write
# story: reverses the heads
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer, slots] = k.flip(1)
    cache.v[layer, slots] = v.flip(1)
