"""What Lab 15 demands of its five pieces, and the mistakes it knows by name.

Here are the format (pack, unpack) and the formula for the time; the two kernels are in
`lab15_kernels.py` and are named here too. Words are compared as hexadecimal digits, one for each
nibble, so that an order that went wrong can be read off. Chapter 15 explains the pieces.
"""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from infero.kernels.steps.matmul import ORDER, Card
from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab02 import compare
from infero.lab.checks.lab15_kernels import int4_matmul, int8_matvec

__all__ = ["int4_matmul", "int8_matvec", "matmul_time_s", "pack_nibbles", "unpack_nibbles"]

NATURAL = tuple(range(8))
INVERSE = tuple(ORDER.index(i) for i in range(8))

# ---------------------------------------------------------------- 1: pack_nibbles


def packed(values: Tensor, order: tuple[int, ...] = ORDER) -> Tensor:
    """Words [out, in / 8] int32 whose nibble p holds value order[p], with Python's integers."""
    rows = []
    for row in values.tolist():
        words = [sum(row[j + order[p]] << 4 * p for p in range(8)) for j in range(0, len(row), 8)]
        rows.append([w - (w >> 31 << 32) for w in words])
    return torch.tensor(rows, dtype=torch.int32)


def _hex(word: int) -> str:
    return f"{word & 0xFFFFFFFF:08x}"


def pack_nibbles(c: Check) -> None:
    """Random values, so that no order coincides with another; the top nibble is often 8 or more."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for out, inner in ((3, 24), (1, 8), (5, 64)):
            values = torch.randint(0, 16, (out, inner), generator=g).to(torch.uint8)
            values[0, 7] = 9  # a negative word: the sign bit is set
            _judge_words(c, c.call(values), values)


def _judge_words(c: Check, got: Any, values: Tensor) -> None:
    want = packed(values)
    form = isinstance(got, Tensor) and got.shape == want.shape
    known = {
        "natural-order": ("Nibble p holds value p of the word. That is the obvious order, and not "
                          "this format's: nibble p holds value ORDER[p]", packed(values, NATURAL)),
        "inverse-order": ("The order is applied the wrong way round: nibble p holds value "
                          "ORDER[p]; you put value i into nibble ORDER[i]",
                          packed(values, INVERSE)),
        "high-first": ("The first value is in the highest bits; nibble 0 is the lowest four bits",
                       packed(values, ORDER[::-1])),
        "high-first-natural": ("The values stand in reading order, the first in the highest bits; "
                               "nibble 0 is the lowest four bits, and it holds value ORDER[0]",
                               packed(values, NATURAL[::-1])),
        "strided": ("Word j holds values that are in / 8 apart; it should hold the eight "
                    "neighbours 8j to 8j + 7",
                    packed(values.view(len(values), 8, -1).transpose(1, 2).flatten(1))),
        "bits-not-nibbles": ("The shifts are p instead of 4p: neighbours overlap",
                             (values.view(len(values), -1, 8)[..., list(ORDER)].int()
                              << torch.arange(8)).sum(-1).int()),
        "sign-lost": ("A word whose top nibble is 8 or more must come out negative: it has 32 "
                      "bits, and the top one is int32's sign. Yours is cut at the largest int32",
                      _cut(want)),
    }
    for key, (words, wrong) in known.items():
        if form and torch.equal(got.long(), wrong.long()) and not torch.equal(wrong, want):
            raise Mistake(f"{words} ({_first(got, want)}).", key)
    if form and got.dtype == want.dtype and not torch.equal(got.long(), want.long()):
        raise Mistake(f"Packed words differ: {_first(got, want)}. Each digit is a nibble, the "
                      "rightmost one is nibble 0.", "wrong-values")
    c.expect_equal(got, want, axes=("row", "word"), what="the packed words")


def _cut(words: Tensor) -> Tensor:
    unsigned = words.long() & 0xFFFFFFFF
    return unsigned.clamp(max=2**31 - 1).int()


def _first(got: Tensor, want: Tensor) -> str:
    row, word = ((got.long() != want.long()).nonzero()[0].tolist()
                 if not torch.equal(got.long(), want.long()) else [0, 0])
    return (f"word {word} of row {row} is {_hex(int(got[row, word]))} and should be "
            f"{_hex(int(want[row, word]))}")


# ---------------------------------------------------------------- 2: unpack_nibbles


class _Conversions(TorchFunctionMode):
    """Notes operations that make floating-point numbers of integers other than by their bits."""

    found = ""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        tensors = [a for a in args if isinstance(a, Tensor)]
        integers = bool(tensors) and not any(t.is_floating_point() for t in tensors)
        floats = isinstance(made, Tensor) and made.is_floating_point()
        stored = name == "__setitem__" and len(tensors) > 1 and tensors[0].is_floating_point() and (
            not tensors[-1].is_floating_point())
        if (integers and floats and name not in ("view", "new_empty", "empty_like")) or stored:
            self.found = self.found or name
        return made


def unpack_nibbles(c: Check) -> None:
    """Random words, half of them negative; exact values; no conversion from integer to float."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for out, inner in ((3, 24), (1, 8), (4, 64)):
            values = torch.randint(0, 16, (out, inner), generator=g).to(torch.uint8)
            values[0, 7] = 12
            words = packed(values)
            with _Conversions() as seen:
                got = c.call(words)
            _judge_values(c, got, values)
            c.expect(not seen.found, "converts",
                     f"The numbers are right, but `{seen.found}` converts integers to floats. On a "
                     "GPU that is an instruction more for each weight; here the bits are to become "
                     "a number as they are: `|` with 0x64006400, then `.view(torch.float16)`.")


def _judge_values(c: Check, got: Any, values: Tensor) -> None:
    want = values.half()
    eight = values.view(len(values), -1, 8)

    def moved(order: tuple[int, ...]) -> Tensor:
        return eight[..., list(order)].flatten(1).half()

    known = {
        "not-subtracted": ("Every value is 1024 too large: 0x6400 | v is the float16 number "
                           "1024 + v, so 1024 must still be subtracted", want + 1024),
        "signed": ("You subtract 1032: values run from -8 to 7 then. The format's values are 0 to "
                   "15; zero points come later", want - 8),
        "natural-order": ("The values come out in the order of the nibbles, 0, 2, 4, 6, 1, 3, 5, "
                          "7, instead of the order of the inputs. The pair of shift 4k is 2k and "
                          "2k + 1", moved(ORDER)),
        "halves-swapped": ("The two halves of each word have changed places: the lower half comes "
                           "first in memory and holds the even value",
                           moved((1, 0, 3, 2, 5, 4, 7, 6))),
        "shifts-reversed": ("The shifts run from 12 down to 0: the pairs come in the wrong order",
                            moved((6, 7, 4, 5, 2, 3, 0, 1))),
        "one-shift": ("All pairs come from the lowest nibbles: shift the word by 4k",
                      moved((0, 1, 0, 1, 0, 1, 0, 1))),
        "pairs-across": ("The pairs of one shift stand together over all words; the eight values "
                         "of a word belong together",
                         values.view(len(values), -1, 4, 2).transpose(1, 2).flatten(1).half()),
    }
    c.expect_equal(got, want, axes=("row", "input"), what="the unpacked values", known=known)


# ---------------------------------------------------------------- 5: matmul_time_s


def matmul_time_s(c: Check) -> None:
    """Cards of random limits, such that each of the three is the slowest in some calls."""
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for slowest in ("memory", "tensor", "unpack", "any"):
            _one_time(c, draw, slowest)
    for tokens in (63, 64, 65):  # the edge of a tile
        _one_time(c, random.Random(tokens), "unpack", tokens=tokens, tile=None)


def _one_time(c: Check, draw: random.Random, slowest: str, tokens: int = 0,
              tile: int | None = 0) -> None:
    size = draw.choice((16, 48, 128)) if tile == 0 else 64
    n = tokens or draw.choice([n for n in range(1, 300) if math.ceil(n / size) not in (2, 8)])
    weights, bits = float(draw.randrange(10**6, 10**8)), draw.choice((4.25, 4.5, 8.0))
    ops = draw.uniform(2, 20)
    fast = {name: 1.0 if name != slowest else draw.uniform(3e-4, 9e-4)
            for name in ("memory", "tensor", "unpack")}
    if slowest == "any":
        fast = {name: draw.uniform(0.2, 1) for name in fast}
    card = Card(3e12 * fast["memory"], 9e14 * fast["tensor"], 3e13 * fast["unpack"])
    read = weights * bits / 8 / card.bandwidth_bytes_per_s
    work = 2 * n * weights / card.flops_per_s
    each = weights * ops / card.instructions_per_s
    unpack = math.ceil(n / size) * each
    want = max(read, work, unpack)
    extra = {} if tile is None else {"tile": size}
    got = c.call(n, weights, bits, ops, card, **extra)
    told = f"{n} tokens, tiles of {size}, where the slowest limit is {slowest}"
    compare(c, got, want, {
        "sum": ("You add the three times; they overlap, and the slowest one decides",
                read + work + unpack),
        "min": ("You take the fastest limit; the slowest one decides", min(read, work, unpack)),
        "bits-not-bytes": ("`bits` are counted as bytes: divide by 8",
                           max(8 * read, work, unpack)),
        "one-operation": ("A multiplication and an addition are two operations for each token and "
                          "weight", max(read, work / 2, unpack)),
        "no-tokens": ("The tensor cores work for every token, not once",
                      max(read, 2 * weights / card.flops_per_s, unpack)),
        "unpack-once": ("Unpacking is done again for every tile of tokens", max(read, work, each)),
        "unpack-each-token": ("Unpacking is done once a tile of tokens, not once a token",
                              max(read, work, n * each)),
        "no-ceil": ("A tile that is not full is unpacked as a whole: round the number of tiles up",
                    max(read, work, n / size * each)),
        "floor": ("The last tile, smaller than the others, is missing: round up",
                  max(read, work, n // size * each)),
        "one-tile-more": ("A tile too many where the tokens just fill their tiles: use math.ceil",
                          max(read, work, (n // size + 1) * each)),
        "fixed-tile": ("The tile is fixed at 64; use `tile`", max(read, work,
                                                                 math.ceil(n / 64) * each)),
        "no-unpack": ("The time for unpacking is missing", max(read, work)),
        "no-memory": ("The time for reading the weights is missing", max(work, unpack)),
        "no-tensor": ("The time of the tensor cores is missing", max(read, unpack)),
        "read-per-tile": ("Memory reads every weight once, whatever the number of tokens",
                          max(read * math.ceil(n / size), work, unpack)),
    }, what=f"the time for {told}")
