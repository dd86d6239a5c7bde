# mutant: infero.runner.pack
# diagnosis: wrong-type
# story: one list a span
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    return Ragged(
        [span.tokens for span in spans],
        [list(range(span.start, span.start + len(span.tokens))) for span in spans],
        [pool_module.slots_of(span.block_table, span.start, len(span.tokens), block_size)
         for span in spans],
        [len(span.tokens) for span in spans],
        [span.start + len(span.tokens) for span in spans],
        [len(span.tokens) - 1 for span in spans if span.samples])
