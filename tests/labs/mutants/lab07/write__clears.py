# mutant: infero.cache.kv.write
# diagnosis: clears-the-rest
# story: clears the layer first
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer].zero_()
    cache.v[layer].zero_()
    cache.k[layer, slots] = k
    cache.v[layer, slots] = v
