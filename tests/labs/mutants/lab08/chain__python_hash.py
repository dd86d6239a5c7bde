# mutant: infero.cache.pool.chain
# diagnosis: wrong-type
# story: hash() of a tuple
#| exercise: infero.cache.pool.chain
def chain(parent, tokens, block_size):
    digests = []
    for i in range(0, len(tokens) - block_size + 1, block_size):
        parent = hash((parent, tuple(tokens[i : i + block_size])))
        digests.append(parent)
    return digests
