# mutant: infero.scheduler.pick_victim
# diagnosis: mutates-input
# story: sorts the scheduler's list
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return (running.sort(key=lambda r: (key(r), r.admitted)), running[-1])[1]
