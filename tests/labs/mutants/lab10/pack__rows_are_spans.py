# mutant: infero.runner.pack
# diagnosis: rows-are-spans
# story: number of the span
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    ragged = Ragged([], [], [], [], [], [])
    for span in spans:
        n = len(span.tokens)
        ragged.ids += span.tokens
        ragged.positions += range(span.start, span.start + n)
        ragged.slots += pool_module.slots_of(span.block_table, span.start, n, block_size)
        ragged.query_lens.append(n)
        ragged.context_lens.append(span.start + n)
        if span.samples:
            ragged.rows.append(len(ragged.query_lens) - 1)
    return ragged
