# mutant: infero.cache.pool.allocate
# diagnosis: lowest-number
# story: searches ref_count for zeros
#| exercise: infero.cache.pool.allocate
def allocate(pool, n):
    if n > len(pool.free):
        raise OutOfBlocks(f"{n} needed, {len(pool.free)} free")
    blocks = [b for b, c in enumerate(pool.ref_count) if c == 0][:n]
    for block in blocks:
        del pool.free[block]
    for block in blocks:
        pool.ref_count[block] = 1
        digest = pool.hash_of[block]
        if digest is not None:
            if pool.evicted is not None:
                pool.evicted(block, digest)
            del pool.block_of[digest]
            pool.hash_of[block] = None
    return blocks
