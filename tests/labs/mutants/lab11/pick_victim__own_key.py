# mutant: infero.scheduler.pick_victim
# diagnosis: own-key
# story: reads request.key
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=lambda r: (r.key, r.admitted))
