# mutant: infero.roofline.critical_batch
# diagnosis: negative
# story: solved the equation and did not look at the sign
#| exercise: infero.roofline.critical_batch
def critical_batch(fixed_bytes, request_bytes, request_flops, flops_per_s, bytes_per_s):
    import math
    gain = request_flops / flops_per_s - request_bytes / bytes_per_s
    if gain == 0:
        return math.inf
    return fixed_bytes / bytes_per_s / gain
