# mutant: infero.runner.pack
# diagnosis: wrong-type
# story: returns a tuple
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    ids = [token for span in spans for token in span.tokens]
    positions = [p for span in spans for p in range(span.start, span.start + len(span.tokens))]
    return ids, positions
