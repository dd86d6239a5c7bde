# mutant: infero.cache.pool.match_prefix
# diagnosis: block-zero
# story: takes block 0 for no block
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if not block:
            break
        if pool.ref_count[block] == 0:
            del pool.free[block]
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks
