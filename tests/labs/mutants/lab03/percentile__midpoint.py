# mutant: infero.bench.percentile
# diagnosis: midpoint
# story: halves between two ranks
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    if low == rank:
        return ordered[low]
    return (ordered[low] + ordered[low + 1]) / 2
