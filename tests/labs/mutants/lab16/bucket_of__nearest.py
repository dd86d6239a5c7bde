# mutant: infero.graphs.bucket_of
# story: the nearest size
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return min(sizes, key=lambda size: abs(size - n))
