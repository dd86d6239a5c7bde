# mutant: infero.cache.pool.chain
# diagnosis: parent-last
# story: content + parent
#| exercise: infero.cache.pool.chain
def chain(parent, tokens, block_size):
    digests = []
    for i in range(0, len(tokens) - block_size + 1, block_size):
        content = b"".join(t.to_bytes(8, "little") for t in tokens[i : i + block_size])
        parent = hashlib.sha256(content + parent).digest()
        digests.append(parent)
    return digests
