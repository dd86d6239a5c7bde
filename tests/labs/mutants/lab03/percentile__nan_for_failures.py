# mutant: infero.bench.percentile
# diagnosis: infinite-samples
# story: subtracts infinities
#| exercise: infero.bench.percentile
def percentile(samples, q):
    if not samples or not 0 <= q <= 100:
        raise ParameterError('no percentile')
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])
