# mutant: infero.cache.kv.write
# diagnosis: added
# story: adds to the old content
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer].index_add_(0, slots, k)
    cache.v[layer].index_add_(0, slots, v)
