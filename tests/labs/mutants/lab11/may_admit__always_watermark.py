# mutant: infero.scheduler.may_admit
# diagnosis: always-watermark
# story: never waived
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free - need >= watermark
