# mutant: infero.cache.pool.chain
# diagnosis: running-hash
# story: one hasher for the whole prompt
#| exercise: infero.cache.pool.chain
def chain(parent, tokens, block_size):
    hasher = hashlib.sha256(parent)
    digests = []
    for i in range(0, len(tokens) - block_size + 1, block_size):
        hasher.update(b"".join(t.to_bytes(8, "little") for t in tokens[i : i + block_size]))
        digests.append(hasher.digest())
    return digests
