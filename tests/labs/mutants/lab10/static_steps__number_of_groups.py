# mutant: infero.batching.static_steps
# diagnosis: groups-for-size
# story: takes slots for the number of groups
#| exercise: infero.batching.static_steps
def static_steps(lengths: Sequence[int], slots: int) -> int:
    size = max(1, -(-len(lengths) // slots))
    return sum(max(lengths[i : i + size]) for i in range(0, len(lengths), size))
