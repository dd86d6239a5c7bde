# mutant: infero.cache.pool.release
# story: highest number first
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in sorted(blocks, reverse=True):
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
            if pool.hash_of[block] is None:
                pool.free.move_to_end(block, last=False)
