# mutant: infero.bench.percentile
# diagnosis: mutates-input
# story: sorts its input
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    samples.sort()
    rank = (len(samples) - 1) * q / 100
    low = math.floor(rank)
    if low == rank:
        return samples[low]
    return (low + 1 - rank) * samples[low] + (rank - low) * samples[low + 1]
