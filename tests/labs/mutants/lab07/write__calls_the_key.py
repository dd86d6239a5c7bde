# mutant: infero.cache.kv.write
# diagnosis: answer-key
# story: calls the engine's own function
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    import infero.cache.kv
    infero.cache.kv.write(cache, layer, slots, k, v)
