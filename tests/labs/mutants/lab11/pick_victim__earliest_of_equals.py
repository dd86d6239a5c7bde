# mutant: infero.scheduler.pick_victim
# diagnosis: earliest-of-equals
# story: ties to the oldest
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=lambda r: (key(r), -r.admitted))
