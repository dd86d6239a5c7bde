# mutant: infero.cache.pool.match_prefix
# diagnosis: no-owner
# story: no reference is taken
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if block is None:
            break
        if pool.ref_count[block] == 0:
            del pool.free[block]
        blocks.append(block)
    return blocks
