"""What Lab 16 demands of fill and replay: fixed memory, harmless padding, calls in their order.

Both write into memory that others keep reading, so the checks look at the memory itself: the
buffers hold what an earlier, larger batch left, and a tape is replayed several times.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infero import tape as tape_module
from infero.graphs import Buffers
from infero.lab.checking import Check, Mistake
from infero.runner import Ragged
from infero.tape import Tape

FIELDS = ("ids", "positions", "slots", "contexts", "sources")
PADDING = {"ids": 0, "positions": 0, "slots": -1, "contexts": 0, "sources": -1}
Rows = dict[str, list[int]]

# ---------------------------------------------------------------- fill


def _used(draw: random.Random, bucket: int, width: int) -> Buffers:
    """Buffers that a full batch was in before."""
    rows = [np.array([draw.randrange(1, 90) for _ in range(bucket)], dtype=np.int32)
            for _ in FIELDS]
    tables = np.array([[draw.randrange(100, 200) for _ in range(width)] for _ in range(bucket)],
                      dtype=np.int32)
    return Buffers(*[*rows, tables])


def _step(draw: random.Random, n: int, width: int, pending: float) -> tuple[Ragged, list[Any]]:
    """A decode step of n requests over blocks of 4; some tokens are not seen yet."""
    ragged, tables = Ragged([], [], [], [], [], []), []
    blocks = draw.sample(range(max(100, n * width)), n * width)
    for row in range(n):
        count = draw.randrange(1, width + 1)
        table, blocks = blocks[:count], blocks[count:]
        place = draw.randrange(4 * (count - 1), 4 * count)
        unseen = draw.random() < pending
        ragged.ids.append(-1 - draw.randrange(8) if unseen else draw.randrange(500))
        ragged.positions.append(place)
        ragged.slots.append(4 * table[place // 4] + place % 4)
        ragged.query_lens.append(1)
        ragged.context_lens.append(place + 1)
        ragged.rows.append(row)
        tables.append(table)
    return ragged, tables


def _right(ragged: Ragged, bucket: int) -> Rows:
    """What the five rows must hold, one request at a time."""
    out: Rows = {name: [PADDING[name]] * bucket for name in FIELDS}
    for r, id in enumerate(ragged.ids):
        out["ids"][r] = id if id >= 0 else 0
        out["sources"][r] = -1 if id >= 0 else -1 - id
        out["positions"][r] = ragged.positions[r]
        out["slots"][r] = ragged.slots[r]
        out["contexts"][r] = ragged.context_lens[r]
    return out


def _known(right: Rows, before: Rows, ragged: Ragged, bucket: int) -> list[
        tuple[str, str, str, list[int]]]:
    """(key, words, field, what that field then holds)."""
    n, ids = len(ragged.ids), ragged.ids
    pad = bucket - n

    def stale(name: str) -> list[int]:
        return right[name][:n] + before[name][n:]

    found = [(f"stale-{name}", words, name, stale(name)) for name, words in (
        ("slots", "The slots past the batch keep what an earlier batch left: a replay would write "
                  "padding's keys into somebody's cache. They are -1."),
        ("contexts", "The contexts past the batch keep what an earlier batch left: padding would "
                     "read a whole context. They are 0."),
        ("ids", "The ids past the batch keep what an earlier batch left; they are 0."),
        ("positions", "The positions past the batch keep what an earlier batch left; they are 0."),
        ("sources", "The sources past the batch keep what an earlier batch left; they are -1."))]
    return [
        *found,
        ("padding-slot-zero", "Padding has slot 0: that is a real place, the first of block 0, and "
         "its owner's keys would be overwritten. It is -1, which writes nowhere.", "slots",
         right["slots"][:n] + [0] * pad),
        ("padding-context-one", "Padding has context 1, so it reads a slot that is not its own; 0 "
         "means that there is no request.", "contexts", right["contexts"][:n] + [1] * pad),
        ("padding-source-zero", "Padding has source 0, which is a row of the step before; -1 means "
         "none.", "sources", right["sources"][:n] + [0] * pad),
        ("negative-ids", "An id below 0 is no token: it says in which row the step before drew it. "
         "Write 0 into ids and the row into sources.", "ids", ids + [0] * pad),
        ("source-is-id", "sources holds the ids that are below 0; the row is -1 - id.", "sources",
         [i if i < 0 else -1 for i in ids] + [-1] * pad),
        ("source-negated", "sources is one too large: id -1 stands for row 0, so the row is "
         "-1 - id.", "sources", [-i if i < 0 else -1 for i in ids] + [-1] * pad),
        ("known-source-zero", "A known token has source 0, so the draw of row 0 would replace it; "
         "it has source -1.", "sources",
         [-1 - i if i < 0 else 0 for i in ids] + [-1] * pad),
        ("sources-forgotten", "sources says nowhere that a token is to come from the step before.",
         "sources", [-1] * bucket),
        ("own-row", "sources holds the request's own row; -1 - id names the row it had in the step "
         "before, which may be another.", "sources",
         [r if i < 0 else -1 for r, i in enumerate(ids)] + [-1] * pad),
        ("contexts-without-new", "contexts leaves out the token that this step writes; copy "
         "ragged.context_lens.", "contexts", [*ragged.positions] + [0] * pad),
        ("query-lens", "contexts holds the numbers of new tokens; copy ragged.context_lens.",
         "contexts", [1] * n + [0] * pad),
        ("slots-are-positions", "The slots are the positions; copy ragged.slots.", "slots",
         ragged.positions + [-1] * pad),
    ]


def fill(c: Check) -> None:
    """Full and partial batches, pending tokens, tables of all lengths, over a larger old batch."""
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for bucket, n, width, pending in ((8, 5, 4, 0.5), (4, 4, 3, 0.0), (4, 1, 5, 1.0),
                                          (16, 11, 2, 0.3), (1, 1, 6, 0.0), (8, 7, 3, 0.9)):
            buffers = _used(draw, bucket, width)
            ragged, tables = _step(draw, n, width, pending)
            _one(c, buffers, ragged, tables, bucket)
    draw = random.Random(5)
    buffers, (ragged, tables) = _used(draw, 64, 32), _step(draw, 50, 32, 0.2)
    c.sample = ((buffers, ragged, tables), {})


def _one(c: Check, buffers: Buffers, ragged: Ragged, tables: list[Any], bucket: int) -> None:
    arrays = {name: getattr(buffers, name) for name in (*FIELDS, "tables")}
    before = {name: arrays[name].tolist() for name in FIELDS}
    copy = (list(ragged.ids), list(ragged.slots), [list(t) for t in tables])
    c.call(buffers, ragged, tables)
    c.expect((ragged.ids, ragged.slots, tables) == copy, "mutates-input",
             "Your function changes the step or the block tables that it was given.")
    for name, array in arrays.items():
        c.expect(getattr(buffers, name) is array, "rebinds",
                 f"You put a new array in the place of buffers.{name}. The graph reads the old "
                 f"one, at its old address: write into it, buffers.{name}[...] = ...")
    right = _right(ragged, bucket)
    mine: Rows = {name: arrays[name].tolist() for name in FIELDS}
    n = len(ragged.ids)
    bad = next((name for name in FIELDS if mine[name] != right[name]), None)
    if bad is not None:
        details = [f"buffers.{bad} should be {right[bad]}; yours is {mine[bad]}.",
                   f"{n} requests in a bucket of {bucket}, ids {ragged.ids}."]
        for key, words, name, wrong in _known(right, before, ragged, bucket):
            if mine[name] == wrong != right[name]:
                raise Mistake(words, key=key, details=details)
        if mine == before:
            raise Mistake("Your function writes nothing into the buffers.", key="nothing-written",
                          details=details)
        raise Mistake(details[0], key="wrong-values", details=details[1:])
    _tables(arrays["tables"], tables, n)


def _tables(got: np.ndarray, tables: list[list[int]], n: int) -> None:
    for row, table in enumerate(tables):
        mine = got[row, : len(table)].tolist()
        if mine == table:
            continue
        details = [f"Row {row} should begin with {table}; yours is {got[row].tolist()}."]
        if got[row, got.shape[1] - len(table) :].tolist() == table:
            raise Mistake("A block table stands at the end of its row; its first block belongs "
                          "into column 0.", key="table-right-aligned", details=details)
        if row and all(got[r, : len(t)].tolist() != t for r, t in enumerate(tables)):
            raise Mistake("No block table is in its row.", key="tables-missing", details=details)
        raise Mistake(f"The block table of request {row} is not in row {row} of buffers.tables.",
                      key="tables-missing", details=details)


# ---------------------------------------------------------------- replay


def _chain(x: Tensor, w: Tensor) -> Tensor:
    """Products, a residual and views: later calls read what earlier ones wrote."""
    h = torch.tanh(x @ w)
    left, right = h.chunk(2, dim=-1)
    return torch.cat((left * right, right), dim=-1) + x


def _in_place(x: Tensor, shift: Tensor) -> Tensor:
    """A buffer that is written twice: only the right order gives the right numbers."""
    total = torch.zeros_like(x)
    total += x
    total *= shift
    total += 1
    return total.t()


def _several(x: Tensor) -> Tensor:
    """Operations with several results."""
    values, where = x.max(dim=1)
    ordered, order = x.sort(dim=1)
    return ordered * values[:, None] + order + where[:, None]


def _last_is_view(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).reshape(-1)[1:]


FUNCTIONS: tuple[tuple[Any, tuple[tuple[int, ...], ...]], ...] = (
    (_chain, ((3, 6), (6, 6))), (_in_place, ((2, 5), (5,))), (_several, ((4, 7),)),
    (_last_is_view, ((3, 4), (3, 4))))


def replay(c: Check) -> None:
    """Tapes of four functions, each replayed with several new inputs."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for function, shapes in FUNCTIONS:
            def inputs(shapes: Any = shapes, g: Any = g) -> list[Tensor]:
                return [torch.randn(shape, generator=g) for shape in shapes]

            tape = tape_module.capture(function, *inputs())
            for _ in range(3):
                _replayed(c, tape, function, inputs())
            _refuses(c, tape, inputs())
    g = c.generator(1)
    tape = tape_module.capture(_chain, torch.randn(64, 64, generator=g),
                               torch.randn(64, 64, generator=g))
    c.sample = ((tape, torch.randn(64, 64, generator=g), torch.randn(64, 64, generator=g)), {})


def _replayed(c: Check, tape: Tape, function: Any, new: list[Tensor]) -> None:
    places, calls, outputs = list(tape.inputs), list(tape.calls), tape.outputs
    kept = [list(call.results) for call in calls]
    old = outputs.clone()
    got = c.call_in_place(tape, *new)
    want = function(*[t.clone() for t in new])
    name = function.__name__.strip("_").replace("_", " ")
    details = [f"The tape was captured from {name!r} with inputs of {_shapes(new)}."]
    if any(a is not b for a, b in zip(tape.inputs, places, strict=True)):
        raise Mistake("You put a new tensor into tape.inputs. The recorded calls still read the "
                      "old one: copy the new values into it with copy_.", key="rebinds-input",
                      details=details)
    moved = (tape.outputs is not outputs or len(tape.calls) != len(calls) or any(
        a is not b for call, results in zip(tape.calls, kept, strict=False)
        for a, b in zip(call.results, results, strict=False)))
    if moved:
        raise Mistake("You replace a recorded tensor by a new one. Later calls and the caller read "
                      "the old one: copy into it with copy_.", key="rebinds-result",
                      details=details)
    if got is None:
        raise Mistake("The result is None: return tape.outputs.", key="returns-none")
    if not isinstance(got, Tensor):
        raise Mistake(f"Return tape.outputs, a tensor; you gave a {type(got).__name__}.",
                      key="wrong-type")
    stale = [i for i, (a, b) in enumerate(zip(tape.inputs, new, strict=True))
             if not torch.equal(a, b)]
    if stale:
        raise Mistake(f"The new values of input {stale[0]} are not in tape.inputs: the calls work "
                      "on what was there before.", key="input-not-copied", details=details)
    if not torch.allclose(outputs, want, atol=1e-5):
        if got is not outputs and got.shape == want.shape and torch.allclose(got, want, atol=1e-5):
            raise Mistake("You return the right numbers, but in a new tensor: tape.outputs still "
                          "holds the old ones, and that is where everybody reads.",
                          key="output-not-written", details=details)
        if torch.equal(outputs, old):
            raise Mistake("tape.outputs still holds the result of the time before: carry out every "
                          "call and copy what run(call) gives into call.results.",
                          key="results-not-copied", details=details)
        raise Mistake("The result is wrong. Carry out all calls, each once and in order, and copy "
                      "what each gives into its call.results before the next one.",
                      key="wrong-values", details=[*details, _numbers(outputs, want)])
    c.expect(got is outputs, "returns-copy",
             "Return tape.outputs itself and no copy: its place in memory is what the caller "
             "knows.")


def _numbers(got: Tensor, want: Tensor) -> str:
    at = int((got - want).abs().flatten().argmax())
    return (f"At entry {at} it should be {want.flatten()[at]:.4g} and is "
            f"{got.flatten()[at]:.4g}.")


def _shapes(tensors: list[Tensor]) -> str:
    return " and ".join(str(tuple(t.shape)) for t in tensors)


def _refuses(c: Check, tape: Tape, new: list[Tensor]) -> None:
    """One row, which copy_ would spread over all of them, and a row too many."""
    for first in (new[0][:1], torch.cat((new[0], new[0][:1]))):
        c.expect_raises(ValueError, tape, first, *new[1:], key="shape-not-checked", words=(
            "An input of another shape must raise ValueError: a tape serves the shape it was "
            f"captured with. This tape has {tuple(new[0].shape)} and was given "
            f"{tuple(first.shape)}" + (", which copy_ quietly spreads over all rows."
                                       if len(first) == 1 else ".")))
