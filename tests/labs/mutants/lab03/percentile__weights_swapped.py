# mutant: infero.bench.percentile
# diagnosis: share-swapped
# story: the neighbours have each other's weight
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    if low == rank:
        return ordered[low]
    return (rank - low) * ordered[low] + (low + 1 - rank) * ordered[low + 1]
