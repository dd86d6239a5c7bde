# mutant: infero.scheduler.pick_victim
# diagnosis: first-served-list
# story: the one served first
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return min(running, key=key)
