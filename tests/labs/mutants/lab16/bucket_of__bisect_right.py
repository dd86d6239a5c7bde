# mutant: infero.graphs.bucket_of
# diagnosis: strictly-larger
# story: bisect_right in place of bisect_left
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    at = bisect.bisect_right(sizes, n)
    return sizes[at] if at < len(sizes) else None
