# mutant: infero.batching.static_steps
# diagnosis: mean-of-group
# story: charges a group with its mean
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    groups = [lengths[i : i + slots] for i in range(0, len(lengths), slots)]
    return sum(sum(group) / len(group) for group in groups)
