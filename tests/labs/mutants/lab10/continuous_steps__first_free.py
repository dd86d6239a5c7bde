# mutant: infero.batching.continuous_steps
# diagnosis: first-free-for-last
# story: min at the end
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in lengths:
        ends[ends.index(min(ends))] += length
    return min(ends)
