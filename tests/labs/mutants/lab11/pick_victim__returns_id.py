# mutant: infero.scheduler.pick_victim
# diagnosis: wrong-type
# story: the id
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=lambda r: (key(r), r.admitted)).id
