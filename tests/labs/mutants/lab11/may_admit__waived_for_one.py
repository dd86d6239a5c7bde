# mutant: infero.scheduler.may_admit
# diagnosis: waived-for-one
# story: waived while one runs
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free - need >= (watermark if running > 1 else 0)
