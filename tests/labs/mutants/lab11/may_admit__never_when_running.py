# mutant: infero.scheduler.may_admit
# diagnosis: never-when-running
# story: static batching
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return running == 0 and need <= free
