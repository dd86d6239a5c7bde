# mutant: infero.batching.continuous_steps
# diagnosis: longest-first
# story: sorts the requests downwards, which packs better
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in sorted(lengths, reverse=True):
        ends[ends.index(min(ends))] += length
    return max(ends)
