# mutant: infero.cache.pool.chain
# diagnosis: as-text
# story: str of the list
#| exercise: infero.cache.pool.chain
def chain(parent, tokens, block_size):
    digests = []
    for i in range(0, len(tokens) - block_size + 1, block_size):
        parent = hashlib.sha256(parent + str(list(tokens[i : i + block_size])).encode()).digest()
        digests.append(parent)
    return digests
