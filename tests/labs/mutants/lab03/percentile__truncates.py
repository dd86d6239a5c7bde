# mutant: infero.bench.percentile
# diagnosis: lower
# story: truncates the rank
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    return ordered[int((len(ordered) - 1) * q / 100)]
