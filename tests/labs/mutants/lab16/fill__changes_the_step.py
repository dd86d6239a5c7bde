# mutant: infero.graphs.fill
# diagnosis: mutates-input
# story: pads the step's own lists
#| exercise: infero.graphs.fill
def fill(buffers: Buffers, ragged: Ragged, tables: Sequence[Sequence[int]]) -> None:
    pad = len(buffers.ids) - len(ragged.ids)
    ids = np.array(ragged.ids + [0] * pad, dtype=np.int32)
    ragged.slots += [-1] * pad
    buffers.ids[:], buffers.sources[:] = np.maximum(ids, 0), np.maximum(-1 - ids, -1)
    buffers.positions[:] = ragged.positions + [0] * pad
    buffers.slots[:] = ragged.slots
    buffers.contexts[:] = ragged.context_lens + [0] * pad
    for row, table in enumerate(tables):
        buffers.tables[row, : len(table)] = table
