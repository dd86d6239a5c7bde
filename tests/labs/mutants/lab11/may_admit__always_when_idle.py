# mutant: infero.scheduler.may_admit
# diagnosis: always-when-idle
# story: waives the pool as well
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return running == 0 or free - need >= watermark
