# mutant: infero.batching.static_steps
# diagnosis: sorted-first
# story: sorts the lengths first
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    ordered = sorted(lengths)
    return sum(max(ordered[i : i + slots]) for i in range(0, len(ordered), slots))
