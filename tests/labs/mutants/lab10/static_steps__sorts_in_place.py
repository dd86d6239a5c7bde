# mutant: infero.batching.static_steps
# diagnosis: mutates-input
# story: sorts the caller's list
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    lengths.sort() if isinstance(lengths, list) else None
    ordered = sorted(lengths)
    return sum(max(ordered[i : i + slots]) for i in range(0, len(ordered), slots))
