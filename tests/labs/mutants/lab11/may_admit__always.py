# mutant: infero.scheduler.may_admit
# diagnosis: always
# story: trusts the pool
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return True
