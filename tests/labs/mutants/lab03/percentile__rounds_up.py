# mutant: infero.bench.percentile
# diagnosis: higher
# story: rounds the rank up
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    return ordered[math.ceil((len(ordered) - 1) * q / 100)]
