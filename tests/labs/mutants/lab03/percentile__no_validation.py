# mutant: infero.bench.percentile
# diagnosis: no-error
# story: answers where there is no answer
#| exercise: infero.bench.percentile
def percentile(samples, q):
    ordered = sorted(samples) or [0.0]
    rank = min(max((len(ordered) - 1) * q / 100, 0), len(ordered) - 1)
    low = math.floor(rank)
    if low == rank:
        return ordered[low]
    return (low + 1 - rank) * ordered[low] + (rank - low) * ordered[low + 1]
