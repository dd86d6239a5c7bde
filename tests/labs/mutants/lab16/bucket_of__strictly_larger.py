# mutant: infero.graphs.bucket_of
# diagnosis: strictly-larger
# story: a full bucket counts as too small
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return next((size for size in sizes if size > n), None)
