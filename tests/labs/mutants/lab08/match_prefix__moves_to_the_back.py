# mutant: infero.cache.pool.match_prefix
# diagnosis: moved-to-the-back
# story: an LRU touch
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if block is None:
            break
        if pool.ref_count[block] == 0:
            pool.free.move_to_end(block)
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks
