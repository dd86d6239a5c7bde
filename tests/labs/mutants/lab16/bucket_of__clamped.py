# mutant: infero.graphs.bucket_of
# diagnosis: too-large-clamped
# story: too many requests go into the largest
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return next((size for size in sizes if size >= n), sizes[-1])
