# mutant: infero.scheduler.pick_victim
# diagnosis: first-in-list
# story: takes the head
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return running[0]
