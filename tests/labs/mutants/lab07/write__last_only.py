# mutant: infero.cache.kv.write
# story: writes the newest token only
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k[layer, slots[-1]] = k[-1]
    cache.v[layer, slots[-1]] = v[-1]
