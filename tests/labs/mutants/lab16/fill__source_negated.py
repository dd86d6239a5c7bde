# mutant: infero.graphs.fill
# diagnosis: source-negated
# story: -id in place of -1 - id
#| exercise: infero.graphs.fill
def fill(buffers: Buffers, ragged: Ragged, tables: Sequence[Sequence[int]]) -> None:
    n = len(ragged.ids)
    ids = np.array(ragged.ids, dtype=np.int32)
    buffers.ids[:n], buffers.ids[n:] = np.maximum(ids, 0), 0
    buffers.sources[:n], buffers.sources[n:] = np.where(ids < 0, -ids, -1), -1
    buffers.positions[:n], buffers.positions[n:] = ragged.positions, 0
    buffers.slots[:n], buffers.slots[n:] = ragged.slots, -1
    buffers.contexts[:n], buffers.contexts[n:] = ragged.context_lens, 0
    for row, table in enumerate(tables):
        buffers.tables[row, : len(table)] = table
