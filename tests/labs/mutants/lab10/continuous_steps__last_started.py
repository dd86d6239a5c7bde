# mutant: infero.batching.continuous_steps
# diagnosis: last-started
# story: returns the end of the last one started
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends, end = [0] * slots, 0
    for length in lengths:
        i = ends.index(min(ends))
        ends[i] += length
        end = ends[i]
    return end
