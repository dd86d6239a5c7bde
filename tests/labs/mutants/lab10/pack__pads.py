# mutant: infero.runner.pack
# diagnosis: padded
# story: fills up to the longest
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    ragged = Ragged([], [], [], [], [], [])
    longest = max((len(span.tokens) for span in spans), default=0)
    for span in spans:
        n = len(span.tokens)
        ragged.ids += span.tokens + [0] * (longest - n)
        ragged.positions += range(span.start, span.start + n)
        ragged.slots += pool_module.slots_of(span.block_table, span.start, n, block_size)
        ragged.query_lens.append(n)
        ragged.context_lens.append(span.start + n)
        if span.samples:
            ragged.rows.append(len(ragged.ids) - 1)
    return ragged
