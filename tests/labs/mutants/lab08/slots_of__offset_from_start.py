# mutant: infero.cache.pool.slots_of
# diagnosis: offset-from-start
# story: counts the place in the block from the first new token
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    slots = []
    for i in range(n):
        block = block_table[(start + i) // block_size]
        slots.append(block * block_size + i % block_size)
    return slots
