# mutant: infero.cache.pool.slots_of
# diagnosis: end-for-length
# story: reads n as the end
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    return [block_table[p // block_size] * block_size + p % block_size for p in range(start, n)]
