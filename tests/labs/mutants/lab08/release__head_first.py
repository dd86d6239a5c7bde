# mutant: infero.cache.pool.release
# diagnosis: head-first
# story: walks the table forwards
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in blocks:
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
            if pool.hash_of[block] is None:
                pool.free.move_to_end(block, last=False)
