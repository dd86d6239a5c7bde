# mutant: infero.graphs.fill
# story: writes only the rows of the batch
#| exercise: infero.graphs.fill
def fill(buffers: Buffers, ragged: Ragged, tables: Sequence[Sequence[int]]) -> None:
    n = len(ragged.ids)
    ids = np.array(ragged.ids, dtype=np.int32)
    buffers.ids[:n] = np.maximum(ids, 0)
    buffers.sources[:n] = np.maximum(-1 - ids, -1)
    buffers.positions[:n] = ragged.positions
    buffers.slots[:n] = ragged.slots
    buffers.contexts[:n] = ragged.context_lens
    for row, table in enumerate(tables):
        buffers.tables[row, : len(table)] = table
