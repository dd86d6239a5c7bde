# mutant: infero.batching.static_steps
# diagnosis: one-after-another
# story: adds all lengths
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(lengths)
