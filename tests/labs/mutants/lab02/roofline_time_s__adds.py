# mutant: infero.roofline.roofline_time_s
# diagnosis: adds
# story: one after the other
#| exercise: infero.roofline.roofline_time_s
def roofline_time_s(flops, bytes_moved, flops_per_s, bytes_per_s):
    return flops / flops_per_s + bytes_moved / bytes_per_s
