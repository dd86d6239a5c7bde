# mutant: infero.bench.percentile
# diagnosis: not-sorted
# story: forgot to sort
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    rank = (len(samples) - 1) * q / 100
    low = math.floor(rank)
    if low == rank:
        return samples[low]
    return (low + 1 - rank) * samples[low] + (rank - low) * samples[low + 1]
