# mutant: infero.bench.percentile
# diagnosis: raises
# story: no last neighbour
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    return (low + 1 - rank) * ordered[low] + (rank - low) * ordered[low + 1]
