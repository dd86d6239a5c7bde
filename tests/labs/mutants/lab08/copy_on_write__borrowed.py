# mutant: infero.cache.pool.copy_on_write
# diagnosis: borrowed-name
# story: calls allocate by its bare name
#| exercise: infero.cache.pool.copy_on_write
def copy_on_write(pool, block_table, index):
    old = block_table[index]
    if pool.ref_count[old] == 1:
        return None
    new = allocate(pool, 1)[0]
    block_table[index] = new
    release(pool, [old])
    return old, new
