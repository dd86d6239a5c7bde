# mutant: infero.bench.percentile
# diagnosis: rank-n
# story: rank n q / 100
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    rank = len(ordered) * q / 100
    low = min(math.floor(rank), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    share = min(rank, len(ordered) - 1) - low
    if share == 0:
        return ordered[low]
    return (1 - share) * ordered[low] + share * ordered[high]
