# mutant: infero.runner.pack
# diagnosis: slots-are-positions
# story: forgets the block table
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    ragged = Ragged([], [], [], [], [], [])
    for span in spans:
        n = len(span.tokens)
        ragged.ids += span.tokens
        ragged.positions += range(span.start, span.start + n)
        ragged.slots += range(span.start, span.start + n)
        ragged.query_lens.append(n)
        ragged.context_lens.append(span.start + n)
        if span.samples:
            ragged.rows.append(len(ragged.ids) - 1)
    return ragged
