# mutant: infero.roofline.critical_batch
# diagnosis: adds-requests
# story: added the time of the cache instead of taking it off
#| exercise: infero.roofline.critical_batch
def critical_batch(fixed_bytes, request_bytes, request_flops, flops_per_s, bytes_per_s):
    import math
    cost = request_flops / flops_per_s + request_bytes / bytes_per_s
    return fixed_bytes / bytes_per_s / cost if cost > 0 else math.inf
