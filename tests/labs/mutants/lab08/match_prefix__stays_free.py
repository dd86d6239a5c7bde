# mutant: infero.cache.pool.match_prefix
# diagnosis: still-free
# story: forgets the free queue
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if block is None:
            break
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks
