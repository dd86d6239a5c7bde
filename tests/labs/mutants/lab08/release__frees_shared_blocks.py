# mutant: infero.cache.pool.release
# diagnosis: freed-while-owned
# story: a release is a release
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
        pool.free[block] = None
        if pool.hash_of[block] is None:
            pool.free.move_to_end(block, last=False)
