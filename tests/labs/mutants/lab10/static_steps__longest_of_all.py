# mutant: infero.batching.static_steps
# diagnosis: longest-of-all
# story: number of groups times the longest request
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    groups = -(-len(lengths) // slots)
    return groups * max(lengths, default=0)
