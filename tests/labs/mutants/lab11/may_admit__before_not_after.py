# mutant: infero.scheduler.may_admit
# diagnosis: before-not-after
# story: looks at the pool before the request
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free >= need and (running == 0 or free >= watermark)
