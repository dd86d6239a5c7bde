# mutant: infero.cache.pool.slots_of
# diagnosis: swapped
# story: exchanges // and %
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    return [block_table[p % block_size % len(block_table)] * block_size + p // block_size
            for p in range(start, start + n)]
