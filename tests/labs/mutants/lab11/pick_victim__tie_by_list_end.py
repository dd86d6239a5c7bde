# mutant: infero.scheduler.pick_victim
# diagnosis: tie-by-list-end
# story: sorts and takes the last
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return sorted(running, key=key)[-1]
