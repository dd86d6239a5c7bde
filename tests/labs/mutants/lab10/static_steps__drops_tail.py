# mutant: infero.batching.static_steps
# diagnosis: last-group-dropped
# story: range stops before the last, smaller group
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(max(lengths[i : i + slots]) for i in range(0, len(lengths) - slots + 1, slots))
