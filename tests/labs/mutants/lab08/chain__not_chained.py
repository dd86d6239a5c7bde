# mutant: infero.cache.pool.chain
# diagnosis: not-chained
# story: every block hangs on the first parent
#| exercise: infero.cache.pool.chain
def chain(parent, tokens, block_size):
    digests = []
    for i in range(0, len(tokens) - block_size + 1, block_size):
        content = b"".join(t.to_bytes(8, "little") for t in tokens[i : i + block_size])
        digests.append(hashlib.sha256(parent + content).digest())
    return digests
