# mutant: infero.cache.pool.copy_on_write
# diagnosis: copies-always
# story: no look at the count
#| exercise: infero.cache.pool.copy_on_write
def copy_on_write(pool, block_table, index):
    old = block_table[index]
    new = pool_module.allocate(pool, 1)[0]
    block_table[index] = new
    pool_module.release(pool, [old])
    return old, new
