# mutant: infero.cache.pool.slots_of
# diagnosis: from-block-start
# story: begins with the block of start
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    slots = []
    p = start - start % block_size
    for _ in range(n):
        slots.append(block_table[p // block_size] * block_size + p % block_size)
        p += 1
    return slots
