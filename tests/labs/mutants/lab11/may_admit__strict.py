# mutant: infero.scheduler.may_admit
# diagnosis: strict
# story: more than
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free - need > (watermark if running else 0)
