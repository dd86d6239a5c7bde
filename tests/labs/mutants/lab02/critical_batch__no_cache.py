# mutant: infero.roofline.critical_batch
# diagnosis: ignores-requests
# story: the weights only: the well-known formula without the cache
#| exercise: infero.roofline.critical_batch
def critical_batch(fixed_bytes, request_bytes, request_flops, flops_per_s, bytes_per_s):
    return fixed_bytes * flops_per_s / (bytes_per_s * request_flops)
