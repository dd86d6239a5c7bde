# mutant: infero.cache.pool.allocate
# diagnosis: block_of-kept
# story: cleans the other map only
#| exercise: infero.cache.pool.allocate
def allocate(pool, n):
    if n > len(pool.free):
        raise OutOfBlocks(f"{n} needed, {len(pool.free)} free")
    blocks = [pool.free.popitem(last=False)[0] for _ in range(n)]
    for block in blocks:
        pool.ref_count[block] = 1
        digest = pool.hash_of[block]
        if digest is not None:
            if pool.evicted is not None:
                pool.evicted(block, digest)
            pool.hash_of[block] = None
    return blocks
