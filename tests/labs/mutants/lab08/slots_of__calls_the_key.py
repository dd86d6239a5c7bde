# mutant: infero.cache.pool.slots_of
# diagnosis: answer-key
# story: asks the engine
#| exercise: infero.cache.pool.slots_of
from infero.cache import pool


def slots_of(block_table, start, n, block_size):
    return pool.slots_of(block_table, start, n, block_size)
