# mutant: infero.roofline.roofline_time_s
# diagnosis: swapped-limits
# story: mixed the limits up
#| exercise: infero.roofline.roofline_time_s
def roofline_time_s(flops, bytes_moved, flops_per_s, bytes_per_s):
    return max(flops / bytes_per_s, bytes_moved / flops_per_s)
