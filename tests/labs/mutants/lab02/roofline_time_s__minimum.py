# mutant: infero.roofline.roofline_time_s
# diagnosis: minimum
# story: the faster of the two decides
#| exercise: infero.roofline.roofline_time_s
def roofline_time_s(flops, bytes_moved, flops_per_s, bytes_per_s):
    return min(flops / flops_per_s, bytes_moved / bytes_per_s)
