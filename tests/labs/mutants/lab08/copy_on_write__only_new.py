# mutant: infero.cache.pool.copy_on_write
# diagnosis: returns-new-only
# story: returns the new block
#| exercise: infero.cache.pool.copy_on_write
def copy_on_write(pool, block_table, index):
    old = block_table[index]
    if pool.ref_count[old] == 1:
        return None
    new = pool_module.allocate(pool, 1)[0]
    block_table[index] = new
    pool_module.release(pool, [old])
    return new
