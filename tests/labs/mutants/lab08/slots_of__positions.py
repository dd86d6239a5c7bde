# mutant: infero.cache.pool.slots_of
# diagnosis: positions-for-slots
# story: a slot is a position
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    return list(range(start, start + n))
