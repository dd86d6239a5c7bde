# mutant: infero.cache.pool.match_prefix
# diagnosis: one-short
# story: wants something left to compute
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes[: len([h for h in hashes if h in pool.block_of]) - 1]:
        block = pool.block_of.get(digest)
        if block is None:
            break
        if pool.ref_count[block] == 0:
            del pool.free[block]
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks
