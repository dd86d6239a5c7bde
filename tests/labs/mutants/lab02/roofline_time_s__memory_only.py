# mutant: infero.roofline.roofline_time_s
# diagnosis: memory-only
# story: decode is memory-bound, so everything is
#| exercise: infero.roofline.roofline_time_s
def roofline_time_s(flops, bytes_moved, flops_per_s, bytes_per_s):
    return bytes_moved / bytes_per_s
