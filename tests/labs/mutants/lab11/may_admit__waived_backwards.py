# mutant: infero.scheduler.may_admit
# diagnosis: waived-backwards
# story: condition the wrong way round
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return free - need >= (0 if running else watermark)
