# mutant: infero.cache.pool.release
# diagnosis: blank-to-the-back
# story: one queue for all
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
