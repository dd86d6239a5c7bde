# mutant: infero.cache.pool.match_prefix
# diagnosis: raises
# story: a shared block is not in free
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if block is None:
            break
        del pool.free[block]
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks
