# mutant: infero.bench.percentile
# diagnosis: descending
# story: ranks from the largest
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples, reverse=True)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    if low == rank:
        return ordered[low]
    return (low + 1 - rank) * ordered[low] + (rank - low) * ordered[low + 1]
