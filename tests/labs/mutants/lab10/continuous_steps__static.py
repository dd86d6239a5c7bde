# mutant: infero.batching.continuous_steps
# diagnosis: static-for-continuous
# story: waits for the whole group
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    return sum(max(lengths[i : i + slots]) for i in range(0, len(lengths), slots))
