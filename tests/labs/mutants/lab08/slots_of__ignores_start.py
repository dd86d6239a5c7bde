# mutant: infero.cache.pool.slots_of
# diagnosis: start-ignored
# story: counts positions from 0
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    return [block_table[p // block_size] * block_size + p % block_size for p in range(n)]
