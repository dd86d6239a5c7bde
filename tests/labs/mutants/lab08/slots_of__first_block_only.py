# mutant: infero.cache.pool.slots_of
# diagnosis: table-ignored
# story: thinks that the blocks of a request lie side by side
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    first = block_table[0] * block_size
    return [first + p for p in range(start, start + n)]
