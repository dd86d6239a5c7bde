# mutant: infero.graphs.bucket_of
# diagnosis: largest-for-all
# story: the largest always fits
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return sizes[-1] if n <= sizes[-1] else None
