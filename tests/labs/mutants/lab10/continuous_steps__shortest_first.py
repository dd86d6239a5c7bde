# mutant: infero.batching.continuous_steps
# diagnosis: shortest-first
# story: sorts the requests
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in sorted(lengths):
        ends[ends.index(min(ends))] += length
    return max(ends)
