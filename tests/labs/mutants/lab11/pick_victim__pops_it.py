# mutant: infero.scheduler.pick_victim
# diagnosis: mutates-input
# story: takes it out as well
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return running.pop(running.index(max(running, key=lambda r: (key(r), r.admitted))))
