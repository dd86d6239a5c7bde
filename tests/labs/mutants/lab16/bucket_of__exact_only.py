# mutant: infero.graphs.bucket_of
# diagnosis: exact-only
# story: no padding
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return n if n in sizes else None
