# mutant: infero.scheduler.may_admit
# diagnosis: no-watermark
# story: fits is fits
#| exercise: infero.scheduler.may_admit
def may_admit(need, free, watermark, running):
    return need <= free
