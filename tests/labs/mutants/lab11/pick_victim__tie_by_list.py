# mutant: infero.scheduler.pick_victim
# diagnosis: tie-by-list
# story: no tie-break
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=key)
