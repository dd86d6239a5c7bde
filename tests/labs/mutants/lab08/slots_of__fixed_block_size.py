# mutant: infero.cache.pool.slots_of
# story: 16 tokens a block, always
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    return [block_table[p // 16] * 16 + p % 16 for p in range(start, start + n)]
