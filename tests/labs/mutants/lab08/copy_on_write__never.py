# mutant: infero.cache.pool.copy_on_write
# diagnosis: never-copies
# story: there is nothing to do
#| exercise: infero.cache.pool.copy_on_write
def copy_on_write(pool, block_table, index):
    return None
