# mutant: infero.batching.continuous_steps
# diagnosis: even-share
# story: total over slots
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    return -(-sum(lengths) // slots)
