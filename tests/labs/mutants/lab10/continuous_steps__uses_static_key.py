# mutant: infero.batching.continuous_steps
# diagnosis: answer-key
# story: divides by the reference's own count
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    from infero import batching
    return batching.continuous_steps(lengths, slots)
