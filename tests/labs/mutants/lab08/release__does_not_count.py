# mutant: infero.cache.pool.release
# diagnosis: not-counted
# story: frees what has one owner, counts nothing
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        if pool.ref_count[block] == 0:
            pool.free[block] = None
