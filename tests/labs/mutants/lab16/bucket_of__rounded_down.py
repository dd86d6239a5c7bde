# mutant: infero.graphs.bucket_of
# diagnosis: rounded-down
# story: the largest that is not larger
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return max((size for size in sizes if size <= n), default=None)
