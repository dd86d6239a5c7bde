# mutant: infero.bench.percentile
# story: takes q as a share
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * min(q, 1)
    low = math.floor(rank)
    if low == rank:
        return ordered[low]
    return (low + 1 - rank) * ordered[low] + (rank - low) * ordered[low + 1]
