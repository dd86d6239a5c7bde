# mutant: infero.batching.continuous_steps
# diagnosis: one-after-another
# story: max instead of min when choosing a slot
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in lengths:
        ends[ends.index(max(ends))] += length
    return max(ends)
