# mutant: infero.runner.pack
# diagnosis: mutates-input
# story: starts from the first span's own list
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    if not spans:
        return Ragged([], [], [], [], [], [])
    ids, positions, slots, lens, context, rows = spans[0].tokens, [], [], [], [], []
    for i, span in enumerate(spans):
        n = len(span.tokens)
        if i:
            ids += span.tokens
        positions += range(span.start, span.start + n)
        slots += pool_module.slots_of(span.block_table, span.start, n, block_size)
        lens.append(n)
        context.append(span.start + n)
        if span.samples:
            rows.append(len(ids) - 1)
    return Ragged(ids, positions, slots, lens, context, rows)
