# mutant: infero.graphs.bucket_of
# story: returns the place in the list
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    at = bisect.bisect_left(sizes, n)
    return at if at < len(sizes) else None
