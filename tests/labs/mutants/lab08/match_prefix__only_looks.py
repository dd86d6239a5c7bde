# mutant: infero.cache.pool.match_prefix
# diagnosis: nothing-changed
# story: a lookup and nothing else
#| exercise: infero.cache.pool.match_prefix
def match_prefix(pool, hashes):
    blocks = []
    for digest in hashes:
        if digest not in pool.block_of:
            break
        blocks.append(pool.block_of[digest])
    return blocks
