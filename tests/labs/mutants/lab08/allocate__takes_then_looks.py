# mutant: infero.cache.pool.allocate
# diagnosis: changed-before-raising
# story: notices too late that the pool is empty
#| exercise: infero.cache.pool.allocate
def allocate(pool, n):
    blocks = []
    for _ in range(n):
        if not pool.free:
            raise OutOfBlocks("nothing left")
        block = pool.free.popitem(last=False)[0]
        pool.ref_count[block] = 1
        digest = pool.hash_of[block]
        if digest is not None:
            if pool.evicted is not None:
                pool.evicted(block, digest)
            del pool.block_of[digest]
            pool.hash_of[block] = None
        blocks.append(block)
    return blocks
