# mutant: infero.batching.static_steps
# diagnosis: raises
# story: max of nothing
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    total = 0
    left = list(lengths)
    while True:
        total += max(left[:slots])
        left = left[slots:]
        if not left:
            return total
