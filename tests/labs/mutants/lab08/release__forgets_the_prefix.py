# mutant: infero.cache.pool.release
# diagnosis: hash-forgotten
# story: cleans up too early
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            digest = pool.hash_of[block]
            if digest is not None:
                del pool.block_of[digest]
                pool.hash_of[block] = None
            pool.free[block] = None
            pool.free.move_to_end(block, last=False)
