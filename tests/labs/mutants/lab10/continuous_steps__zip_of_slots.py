# mutant: infero.batching.continuous_steps
# diagnosis: raises
# story: takes the first `slots` requests for granted
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [lengths[i] for i in range(slots)]
    for length in lengths[slots:]:
        ends[ends.index(min(ends))] += length
    return max(ends)
