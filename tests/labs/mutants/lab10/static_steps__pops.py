# mutant: infero.batching.static_steps
# diagnosis: mutates-input
# story: consumes the caller's list
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    left = lengths if isinstance(lengths, list) else list(lengths)
    total = 0
    while left:
        total += max(left[:slots])
        del left[:slots]
    return total
