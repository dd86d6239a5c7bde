# mutant: infero.graphs.fill
# diagnosis: rebinds
# story: new arrays in place of the old
#| exercise: infero.graphs.fill
def fill(buffers: Buffers, ragged: Ragged, tables: Sequence[Sequence[int]]) -> None:
    n, pad = len(ragged.ids), len(buffers.ids) - len(ragged.ids)
    ids = np.array(ragged.ids, dtype=np.int32)
    buffers.ids = np.concatenate([np.maximum(ids, 0), np.zeros(pad, dtype=np.int32)])
    buffers.sources = np.concatenate([np.maximum(-1 - ids, -1), np.full(pad, -1, dtype=np.int32)])
    buffers.positions = np.array(ragged.positions + [0] * pad, dtype=np.int32)
    buffers.slots = np.array(ragged.slots + [-1] * pad, dtype=np.int32)
    buffers.contexts = np.array(ragged.context_lens + [0] * pad, dtype=np.int32)
    for row, table in enumerate(tables):
        buffers.tables[row, : len(table)] = table
