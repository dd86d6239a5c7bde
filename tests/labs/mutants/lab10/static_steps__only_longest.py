# mutant: infero.batching.static_steps
# diagnosis: longest-group-only
# story: returns the longest request
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    return max(lengths, default=0)
