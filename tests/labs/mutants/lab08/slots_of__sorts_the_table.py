# mutant: infero.cache.pool.slots_of
# story: sorts the table first
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    table = sorted(block_table)
    return [table[p // block_size] * block_size + p % block_size for p in range(start, start + n)]
