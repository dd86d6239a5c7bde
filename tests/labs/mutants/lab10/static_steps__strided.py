# mutant: infero.batching.static_steps
# diagnosis: strided
# story: takes every n-th request into a group
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    groups = -(-len(lengths) // slots)
    return sum(max(lengths[i::groups]) for i in range(groups))
