# mutant: infero.cache.pool.copy_on_write
# diagnosis: prefix-moved
# story: moves the digest to the copy
#| exercise: infero.cache.pool.copy_on_write
def copy_on_write(pool, block_table, index):
    old = block_table[index]
    if pool.ref_count[old] == 1:
        return None
    new = pool_module.allocate(pool, 1)[0]
    block_table[index] = new
    pool_module.release(pool, [old])
    digest = pool.hash_of[old]
    if digest is not None:
        pool.hash_of[old], pool.hash_of[new] = None, digest
        pool.block_of[digest] = new
    return old, new
