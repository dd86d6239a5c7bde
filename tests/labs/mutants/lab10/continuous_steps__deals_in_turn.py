# mutant: infero.batching.continuous_steps
# diagnosis: dealt-in-turn
# story: request i to slot i % slots
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    return max(sum(lengths[i::slots]) for i in range(slots))
