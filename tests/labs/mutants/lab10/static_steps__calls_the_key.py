# mutant: infero.batching.static_steps
# diagnosis: answer-key
# story: asks the reference
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    from infero import batching
    return batching.static_steps(lengths, slots)
