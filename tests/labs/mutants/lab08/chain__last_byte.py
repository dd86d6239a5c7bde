# mutant: infero.cache.pool.chain
# diagnosis: truncated-byte
# story: bytes(t % 256)
#| exercise: infero.cache.pool.chain
def chain(parent, tokens, block_size):
    digests = []
    for i in range(0, len(tokens) - block_size + 1, block_size):
        content = bytes(t % 256 for t in tokens[i : i + block_size])
        parent = hashlib.sha256(parent + content).digest()
        digests.append(parent)
    return digests
