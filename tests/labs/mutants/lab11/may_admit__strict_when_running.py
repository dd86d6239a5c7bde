# mutant: infero.scheduler.may_admit
# diagnosis: strict-when-running
# story: more than, while something runs
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free - need > watermark if running else free >= need
