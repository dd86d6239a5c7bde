# mutant: infero.bench.percentile
# story: rounds the rank
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    return ordered[round((len(ordered) - 1) * q / 100)]
