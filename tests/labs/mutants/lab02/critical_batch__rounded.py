# mutant: infero.roofline.critical_batch
# diagnosis: rounded
# story: a batch is a whole number
#| exercise: infero.roofline.critical_batch
def critical_batch(fixed_bytes, request_bytes, request_flops, flops_per_s, bytes_per_s):
    import math
    gain = request_flops / flops_per_s - request_bytes / bytes_per_s
    return math.inf if gain <= 0 else math.ceil(fixed_bytes / bytes_per_s / gain)
