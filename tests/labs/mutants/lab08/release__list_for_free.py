# mutant: infero.cache.pool.release
# diagnosis: wrong-type
# story: replaces free by a list
#| exercise: infero.cache.pool.release
def release(pool, blocks):
    order = list(pool.free)
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            if pool.hash_of[block] is None:
                order.insert(0, block)
            else:
                order.append(block)
    pool.free = order
