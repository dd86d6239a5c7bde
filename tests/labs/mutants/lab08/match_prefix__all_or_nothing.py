# mutant: infero.cache.pool.match_prefix
# diagnosis: all-or-nothing
# story: only a whole hit counts
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    if any(digest not in pool.block_of for digest in hashes):
        return []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if block is None:
            break
        if pool.ref_count[block] == 0:
            del pool.free[block]
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks
