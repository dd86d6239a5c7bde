# mutant: infero.cache.pool.release
# diagnosis: never-freed
# story: counts and never frees
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
