# mutant: infero.cache.pool.allocate
# diagnosis: wrong-error
# story: lets the dictionary raise
#| exercise: infero.cache.pool.allocate
def allocate(pool, n):
    blocks = [pool.free.popitem(last=False)[0] for _ in range(n)]
    for block in blocks:
        pool.ref_count[block] = 1
        digest = pool.hash_of[block]
        if digest is not None:
            if pool.evicted is not None:
                pool.evicted(block, digest)
            del pool.block_of[digest]
            pool.hash_of[block] = None
    return blocks
