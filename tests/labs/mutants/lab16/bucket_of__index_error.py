# mutant: infero.graphs.bucket_of
# diagnosis: raises
# story: forgets the batch that is too large
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return sizes[bisect.bisect_left(sizes, n)]
