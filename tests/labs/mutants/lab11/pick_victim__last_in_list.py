# mutant: infero.scheduler.pick_victim
# diagnosis: last-in-list
# story: pops the last, as for a list kept in order
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return running[-1]
