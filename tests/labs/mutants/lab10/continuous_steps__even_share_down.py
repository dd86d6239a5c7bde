# mutant: infero.batching.continuous_steps
# diagnosis: even-share-rounded-down
# story: total over slots, rounded down
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(lengths) // slots
