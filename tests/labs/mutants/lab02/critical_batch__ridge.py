# mutant: infero.roofline.critical_batch
# diagnosis: ridge
# story: the ridge is not yet the batch
#| exercise: infero.roofline.critical_batch
def critical_batch(fixed_bytes, request_bytes, request_flops, flops_per_s, bytes_per_s):
    return flops_per_s / bytes_per_s
