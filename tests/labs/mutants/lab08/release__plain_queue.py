# mutant: infero.cache.pool.release
# diagnosis: head-first-and-blank-to-the-back
# story: the first idea
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in blocks:
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
