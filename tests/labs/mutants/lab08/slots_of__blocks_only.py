# mutant: infero.cache.pool.slots_of
# diagnosis: blocks-for-slots
# story: returns the blocks
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    return [block_table[p // block_size] for p in range(start, start + n)]
