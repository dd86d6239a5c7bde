# mutant: infero.graphs.bucket_of
# diagnosis: power-of-two
# story: computes a power of two
#| exercise: infero.graphs.bucket_of
def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    return None if n > sizes[-1] else 1 << (n - 1).bit_length()
