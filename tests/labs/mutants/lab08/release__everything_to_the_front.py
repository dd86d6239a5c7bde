# mutant: infero.cache.pool.release
# diagnosis: cached-to-the-front
# story: a stack
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
            pool.free.move_to_end(block, last=False)
