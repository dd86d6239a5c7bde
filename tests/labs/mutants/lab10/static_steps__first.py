# mutant: infero.batching.static_steps
# diagnosis: first-of-group
# story: takes the first of each group
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(lengths[::slots])
