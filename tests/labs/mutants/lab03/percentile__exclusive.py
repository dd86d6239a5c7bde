# mutant: infero.bench.percentile
# diagnosis: exclusive
# story: the (n + 1) definition
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    n = len(ordered)
    rank = min(max((n + 1) * q / 100 - 1, 0), n - 1)
    low = math.floor(rank)
    if low == rank:
        return ordered[low]
    return (low + 1 - rank) * ordered[low] + (rank - low) * ordered[low + 1]
