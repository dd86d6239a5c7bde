# mutant: infero.cache.kv.write
# diagnosis: slots-as-a-run
# story: takes the slots for a contiguous stretch
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    first, n = min(int(slots[0]), cache.k.shape[1] - len(slots)), len(slots)
    for t in range(n):
        at = min(int(slots[0]) + t, cache.k.shape[1] - 1)
        cache.k[layer, at] = k[t]
        cache.v[layer, at] = v[t]
