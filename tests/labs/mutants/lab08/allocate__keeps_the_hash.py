# mutant: infero.cache.pool.allocate
# diagnosis: hash-kept
# story: forgets to forget
#| exercise: infero.cache.pool.allocate
def allocate(pool, n):
    if n > len(pool.free):
        raise OutOfBlocks(f"{n} needed, {len(pool.free)} free")
    blocks = [pool.free.popitem(last=False)[0] for _ in range(n)]
    for block in blocks:
        pool.ref_count[block] = 1
    return blocks
