# mutant: infero.cache.pool.slots_of
# diagnosis: off-by-one
# story: positions from one
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    slots = []
    for p in range(start + 1, start + n + 1):
        block = block_table[min(p // block_size, len(block_table) - 1)]
        slots.append(block * block_size + p % block_size)
    return slots
