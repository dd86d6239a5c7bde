# mutant: infero.cache.pool.release
# diagnosis: mutates-input
# story: blocks.reverse()
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    blocks.reverse()
    for block in blocks:
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
            if pool.hash_of[block] is None:
                pool.free.move_to_end(block, last=False)
