# mutant: infero.bench.percentile
# diagnosis: nearest-rank
# story: nearest rank
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)]
