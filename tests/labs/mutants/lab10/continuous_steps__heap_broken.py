# mutant: infero.batching.continuous_steps
# story: pushes without popping
#| exercise: infero.batching.continuous_steps
def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for length in lengths:
        heapq.heappush(ends, ends[0] + length)
    return max(ends)
