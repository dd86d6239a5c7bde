# mutant: infero.cache.kv.write
# diagnosis: slots-sorted
# story: sorts the slots but not the tokens
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    order = slots.sort().values
    cache.k[layer, order] = k
    cache.v[layer, order] = v
