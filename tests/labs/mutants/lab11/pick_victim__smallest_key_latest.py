# mutant: infero.scheduler.pick_victim
# diagnosis: first-served
# story: the one served first, latest of equals
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return min(running, key=lambda r: (key(r), -r.admitted))
