# mutant: infero.batching.static_steps
# diagnosis: shortest-of-group
# story: min instead of max
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(min(lengths[i : i + slots]) for i in range(0, len(lengths), slots))
