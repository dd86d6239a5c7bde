# mutant: infero.cache.pool.release
# diagnosis: count-zeroed
# story: sets the count to zero
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        pool.ref_count[block] = 0
        pool.free[block] = None
        if pool.hash_of[block] is None:
            pool.free.move_to_end(block, last=False)
