# mutant: infero.scheduler.may_admit
# diagnosis: per-request
# story: a watermark for each
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free - need >= watermark * running
