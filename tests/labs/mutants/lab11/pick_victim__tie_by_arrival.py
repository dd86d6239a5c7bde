# mutant: infero.scheduler.pick_victim
# diagnosis: tie-by-arrival
# story: ties by arrival
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=lambda r: (key(r), r.arrival_s))
