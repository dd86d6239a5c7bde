# mutant: infero.cache.pool.allocate
# diagnosis: no-owner
# story: never sets ref_count
#| exercise: infero.cache.pool.allocate
def allocate(pool, n):
    if n > len(pool.free):
        raise OutOfBlocks(f"{n} needed, {len(pool.free)} free")
    blocks = [pool.free.popitem(last=False)[0] for _ in range(n)]
    for block in blocks:
        digest = pool.hash_of[block]
        if digest is not None:
            if pool.evicted is not None:
                pool.evicted(block, digest)
            del pool.block_of[digest]
            pool.hash_of[block] = None
    return blocks
