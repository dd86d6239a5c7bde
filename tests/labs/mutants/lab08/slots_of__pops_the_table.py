# mutant: infero.cache.pool.slots_of
# story: eats the table up
#| exercise: infero.cache.pool.slots_of
def slots_of(block_table, start, n, block_size):
    slots = []
    for p in range(start, start + n):
        slots.append(block_table[p // block_size] * block_size + p % block_size)
    if hasattr(block_table, "clear"):
        block_table.clear()
    return slots
