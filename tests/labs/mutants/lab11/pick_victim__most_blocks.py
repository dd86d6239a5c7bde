# mutant: infero.scheduler.pick_victim
# diagnosis: most-blocks
# story: the largest holder
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=lambda r: len(r.block_table))
