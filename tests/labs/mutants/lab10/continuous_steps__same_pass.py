# mutant: infero.batching.continuous_steps
# diagnosis: same-pass
# story: starts the next request in the pass that ends one
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in lengths:
        i = ends.index(min(ends))
        ends[i] += length - (1 if ends[i] else 0)
    return max(ends)
