# mutant: infero.batching.static_steps
# diagnosis: continuous-for-static
# story: refills a slot at once
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in lengths:
        ends[ends.index(min(ends))] += length
    return max(ends)
