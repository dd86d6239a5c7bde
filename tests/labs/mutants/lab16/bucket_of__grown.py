# mutant: infero.graphs.bucket_of
# diagnosis: too-large-grown
# story: makes up a bucket
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return next((size for size in sizes if size >= n), n)
