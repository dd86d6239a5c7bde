# mutant: infero.roofline.roofline_time_s
# story: divided by the attainable rate, which breaks down without bytes or operations
#| exercise: infero.roofline.roofline_time_s
def roofline_time_s(flops, bytes_moved, flops_per_s, bytes_per_s):
    intensity = flops / bytes_moved
    return flops / min(flops_per_s, intensity * bytes_per_s)
