# mutant: infero.scheduler.pick_victim
# diagnosis: latest-admitted
# story: ignores the policy
#| exercise: infero.scheduler.pick_victim
def pick_victim(running, key):
    return max(running, key=lambda r: r.admitted)
