# mutant: infero.scheduler.pick_victim
# diagnosis: least-computed
# story: the least work lost
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return min(running, key=lambda r: r.computed)
