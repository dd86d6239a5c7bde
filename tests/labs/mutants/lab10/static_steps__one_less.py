# mutant: infero.batching.static_steps
# diagnosis: off-by-one
# story: counts from pass 0
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(max(lengths[i : i + slots]) for i in range(0, len(lengths), slots)) - 1
