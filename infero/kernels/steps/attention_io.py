"""Bytes that attention moves between a GPU's memory and its processors, by formula and counted.

The formulas are chapter 14's (Dao et al., arXiv:2205.14135, count the same way): caches are left
out, every load is one from memory. `counted` sees what an interpreted kernel really loads and
stores, and the tests hold the formulas against it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Traffic:
    """Bytes read from and written to the GPU's memory."""

    read: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        return self.read + self.written


def keys_seen(tile: int, rows: int, queries: int, context: int, causal: bool = True) -> int:
    """One past the last key that the queries of a tile may see: where its loop ends."""
    return min(context, context - queries + (tile + 1) * rows) if causal else context


def tiles(queries: int, context: int, rows: int, keys: int, causal: bool = True
          ) -> list[tuple[int, int]]:
    """The tiles (i, j) of the score matrix that are computed, in order: i of queries, j of keys."""
    found = []
    for i in range(-(-queries // rows)):
        end = keys_seen(i, rows, queries, context, causal)
        found += [(i, j) for j in range(-(-end // keys))]
    return found


def flash_traffic(queries: int, context: int, dim: int, rows: int, keys: int, width: int = 2,
                  causal: bool = True) -> Traffic:
    """Of one head, with tiles of `rows` queries and `keys` keys; `width` bytes a number.

    Queries are read and outputs written once; keys and values are read once for every tile of
    queries that may see them.
    """
    moved = Traffic(read=queries * dim * width, written=queries * dim * width)
    for i in range(-(-queries // rows)):
        end = keys_seen(i, rows, queries, context, causal)
        loaded = min(context, -(-end // keys) * keys)  # the last tile is loaded whole
        moved.read += 2 * loaded * dim * width
    return moved


def naive_traffic(queries: int, context: int, dim: int, width: int = 2) -> Traffic:
    """Of one head, in three kernels: scores written; read, softmax written; read, output written.

    The whole score matrix is computed, whether a mask hides half of it or not.
    """
    scores = queries * context
    return Traffic(read=(queries * dim + 2 * context * dim + 2 * scores) * width,
                   written=(queries * dim + 2 * scores) * width)


@contextmanager
def counted() -> Iterator[Traffic]:
    """Counts what interpreted Triton kernels load and store inside the `with`, masks considered."""
    interpreter = importlib.import_module("triton.runtime.interpreter")
    builder, moved = interpreter.interpreter_builder, Traffic()
    load, store = builder.create_masked_load, builder.create_masked_store

    def counting_load(ptrs: Any, mask: Any, *rest: Any) -> Any:
        found = load(ptrs, mask, *rest)
        moved.read += int(mask.data.sum()) * found.data.dtype.itemsize
        return found

    def counting_store(ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        moved.written += int(mask.data.sum()) * value.data.dtype.itemsize
        return store(ptrs, value, mask, *rest)

    builder.create_masked_load, builder.create_masked_store = counting_load, counting_store
    try:
        yield moved
    finally:
        del builder.create_masked_load, builder.create_masked_store
