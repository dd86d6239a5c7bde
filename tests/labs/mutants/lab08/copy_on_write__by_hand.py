# mutant: infero.cache.pool.copy_on_write
# diagnosis: taken-by-hand
# story: pops a block off the queue itself
#| exercise: infero.cache.pool.copy_on_write
def copy_on_write(pool, block_table, index):
    old = block_table[index]
    if pool.ref_count[old] == 1:
        return None
    if not pool.free:
        raise OutOfBlocks('none')
    new = pool.free.popitem(last=False)[0]
    pool.ref_count[new] = 1
    block_table[index] = new
    pool_module.release(pool, [old])
    return old, new
