"""What Lab 2 demands of its five pieces, and the mistakes it knows by name.

Every exercise is arithmetic on a model's shape, so the checks draw shapes in which no two sizes
agree by accident: heads * dim differs from hidden, query heads outnumber KV heads, and batch, new
tokens and context all differ. The expected values are worked out matrix by matrix and query by
query, not by the closed formulas of the reference. Chapter 2 explains the pieces.
"""

from __future__ import annotations

import math
import random
from typing import Any

from infero.lab.checking import Check, Mistake
from infero.roofline import ModelShape

__all__ = ["count_weights", "critical_batch", "kv_bytes", "roofline_time_s", "step_flops"]

RTOL = 1e-9


def random_shape(draw: random.Random, tied: bool) -> ModelShape:
    """A small shape without coincidences: every size is a different odd-ish number."""
    kv_heads = draw.choice([2, 3, 5])
    heads = kv_heads * draw.choice([3, 4, 7])
    dim = 2 * draw.randrange(5, 20)
    hidden = draw.randrange(150, 400)
    while hidden in (heads * dim, kv_heads * dim):
        hidden += 1
    return ModelShape(
        "a random model", "llama", draw.randrange(700, 1500), hidden, draw.randrange(500, 690),
        draw.randrange(3, 9), heads, kv_heads, dim, 4096, tied, False, "",
    )


def shapes(c: Check, n: int) -> list[tuple[random.Random, ModelShape]]:
    """n random shapes, tied and untied in turn, each with the source of more random numbers."""
    found = []
    for i, seed in enumerate(c.seeds(n)):
        draw = random.Random(seed)
        found.append((draw, random_shape(draw, tied=i % 2 == 0)))
    return found


def number(c: Check, got: Any, what: str = "the result") -> float:
    """`got` as a float, or a Mistake that says what came instead."""
    if got is None:
        raise Mistake(f"{what} is None: does your function end in `return`?", key="returns-none")
    try:
        value = float(got)
    except (TypeError, ValueError):
        raise Mistake(f"{what} should be one number; you gave {got!r}.", key="wrong-type") from None
    c.expect(not math.isnan(value), "nan", f"{what} is NaN (not a number): 0/0 or inf - inf.")
    return value


def compare(c: Check, got: Any, want: float, known: dict[str, tuple[str, float]],
            what: str = "the result") -> None:
    """`got` must be `want`; a known wrong value that differs from `want` is named."""
    value = number(c, got, what)
    telling = {key: pair for key, pair in known.items()
               if not math.isclose(pair[1], want, rel_tol=1e-6)}
    c.expect_close(value, want, atol=0.0, rtol=RTOL, known=telling, what=what)


# ---------------------------------------------------------------- 1: count_weights


def count_weights(c: Check) -> None:
    """The sum over a list of matrices, on shapes whose heads * dim is not hidden."""
    for _, s in shapes(c, 6):
        hidden, inter = s.hidden_size, s.intermediate_size
        q, kv, vocab = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim, s.vocab_size
        layers = s.num_layers
        matrices = {"query": (q, hidden), "key": (kv, hidden), "value": (kv, hidden),
                    "output": (hidden, q), "gate": (inter, hidden), "up": (inter, hidden),
                    "down": (hidden, inter)}
        size = {name: rows * columns for name, (rows, columns) in matrices.items()}
        one = sum(size.values())

        got = c.call(s)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Mistake(
                f"The result should be a pair (weights of all layers, weights of the head); you "
                f"gave {got!r}.", key="not-a-pair")
        if isinstance(got[0], (int, float)) and got[0] == vocab * hidden != layers * one:
            raise Mistake("The pair is the wrong way round: the layers come first, then the head.",
                          key="swapped")
        without = {name: layers * (one - count) for name, count in size.items()}
        compare(c, got[0], layers * one, {
            "one-layer": ("you count one layer; the model has config.num_layers of them", one),
            "kv-as-queries": ("key and value are counted with as many heads as the queries have; "
                              "with grouped-query attention they have only num_kv_heads",
                              layers * (one + 2 * (q - kv) * hidden)),
            "queries-as-kv": ("queries are counted with num_kv_heads heads; they have num_heads",
                              layers * (one - 2 * (q - kv) * hidden)),
            "hidden-squared": ("query and output are counted as hidden by hidden; they are hidden "
                               "by num_heads * head_dim, which need not equal hidden",
                               layers * (one + 2 * hidden * (hidden - q))),
            "all-hidden-squared": ("all four attention matrices are counted as hidden by hidden; "
                                   "their other side is heads * head_dim, with num_kv_heads heads "
                                   "for key and value",
                                   layers * (4 * hidden**2 + 3 * inter * hidden)),
            "two-mlp-matrices": ("the MLP is counted with two matrices; a gated MLP has three: "
                                 "gate, up and down", without["gate"]),
            "one-of-key-value": ("key and value are both projected: you count one of them",
                                 without["key"]),
            "missing-output": ("the output projection, back from the heads to hidden, is missing",
                               without["output"]),
            "missing-query": ("the query projection is missing", without["query"]),
            "missing-mlp": ("the MLP is missing", layers * (one - 3 * inter * hidden)),
            "no-head-dim": ("you multiply by the number of heads but not by head_dim",
                            layers * hidden * (2 * s.num_heads + 2 * s.num_kv_heads + 3 * inter)),
            "bytes-not-weights": ("this is the number of bytes at 16 bits; count weights",
                                  2 * layers * one),
            "with-norms": ("you count the norms too; they are tiny and the exercise omits them",
                           layers * (one + 2 * hidden)),
        }, what="the count of the layers")
        tied = ("the head is left out where it is tied to the embedding; sharing saves memory, but "
                "each step still multiplies by the whole matrix")
        compare(c, got[1], vocab * hidden, {
            "tied-head": (tied, 0.0),
            "embedding-counted": ("you count the embedding as well; only one row of it is looked "
                                  "up for a token, and nothing is multiplied by it",
                                  2 * vocab * hidden),
            "head-per-layer": ("the head is there once, not in every layer",
                               layers * vocab * hidden),
            "head-from-heads": ("the head goes from hidden to the vocabulary", vocab * q),
            "bytes-not-weights": ("this is the number of bytes at 16 bits; count weights",
                                  2 * vocab * hidden),
        }, what="the count of the head")


# ---------------------------------------------------------------- 2: kv_bytes


def kv_bytes(c: Check) -> None:
    """Vectors written and read one by one, for prefill, decode and a chunk, several widths."""
    for draw, s in shapes(c, 4):
        context = draw.randrange(40, 90)
        for batch, new in ((1, 1), (draw.randrange(3, 9), 1), (draw.randrange(2, 6), context),
                           (3, draw.randrange(7, 30))):
            for bits in (16, 8, 4.5):
                vector = s.head_dim * bits / 8
                want = 0.0
                for _ in range(batch):
                    written = read = 0
                    for _ in range(s.num_layers):
                        written += new * s.num_kv_heads * 2  # a key and a value each
                        read += context * s.num_kv_heads * 2
                    want += (written + read) * vector
                per_token = 2 * s.num_layers * s.num_kv_heads * vector
                compare(c, c.call(s, batch, new, context, bits), want, {
                    "keys-only": ("only one vector a token and head is counted; the cache keeps a "
                                  "key and a value", want / 2),
                    "query-heads": ("you count one key and value per query head; there are only "
                                    "num_kv_heads of them, and the group shares them",
                                    want * s.num_heads / s.num_kv_heads),
                    "one-layer": ("you count one layer; each of config.num_layers layers keeps its "
                                  "own keys and values", want / s.num_layers),
                    "bits-not-bytes": ("this is the number of bits; eight bits make a byte",
                                       want * 8),
                    "always-two-bytes": ("you take two bytes a number whatever kv_bits is",
                                         want * 16 / bits),
                    "one-request": ("you count one request; there are `batch` of them, each with "
                                    "a cache of its own", want / batch),
                    "no-writes": ("the writes of the new tokens are missing (or the step is taken "
                                  "to read only the old ones): it writes `new` tokens and reads "
                                  "all of `context`", batch * context * per_token),
                    "no-reads": ("only the writes are counted; attention reads the whole context",
                                 batch * new * per_token),
                    "read-per-query": ("you read the whole context once for every new token; one "
                                       "pass over it serves all queries of the request",
                                       batch * (new + new * context) * per_token),
                    "writes-per-context": ("reads and writes are both counted over the context; "
                                           "only the `new` tokens are written",
                                           2 * batch * context * per_token),
                    "old-plus-new-twice": ("context already includes the new tokens: reads are "
                                           "`context`, not `context + new`",
                                           batch * (2 * new + context) * per_token),
                    "hidden-size": ("a key has num_kv_heads * head_dim numbers, not hidden_size",
                                    want * s.hidden_size / (s.num_kv_heads * s.head_dim)),
                })


# ---------------------------------------------------------------- 3: step_flops


def step_flops(c: Check) -> None:
    """Dot products counted query by query, for prefill, decode and a chunk."""
    for draw, s in shapes(c, 4):
        layers, head = float(draw.randrange(10**5, 10**6)), float(draw.randrange(10**5, 10**6))
        context = draw.randrange(40, 90)
        for batch, new in ((1, 1), (draw.randrange(3, 9), 1), (1, context),
                           (draw.randrange(2, 6), context), (3, draw.randrange(7, 30))):
            pairs = sum(context - new + i + 1 for i in range(new))
            dots = batch * pairs * s.num_layers * s.num_heads
            attention = dots * 2 * (2 * s.head_dim)  # score and value, each dim multiply-adds
            matrices = batch * 2 * (new * layers + head)
            want = matrices + attention

            def other(seen: float, batch: int = batch, s: ModelShape = s,
                      matrices: float = matrices) -> float:
                """The result if a request had `seen` pairs."""
                return matrices + 4 * batch * seen * s.num_layers * s.num_heads * s.head_dim

            compare(c, c.call(s, (layers, head), batch, new, context), want, {
                "multiply-only": ("a multiply-add is counted as one operation; by convention it is "
                                  "two", want / 2),
                "attention-forgotten": ("the matrix products are right, but attention over the "
                                        "context is missing", matrices),
                "not-causal": ("every query is paired with the whole context; a query sees only "
                               "itself and what is before it", other(new * context)),
                "context-squared-half": ("the pairs are counted as context²/2; that is close for a "
                                         "long prefill and far off for decode: the queries are "
                                         "only the last `new` positions", other(context**2 / 2)),
                "lower-triangle": ("the pairs are counted as context * (context + 1) / 2, as if all"
                                   " of the context were new; only the last `new` positions are "
                                   "queries", other(context * (context + 1) / 2)),
                "excludes-itself": ("you are `new` pairs short: a query also sees its own key, so "
                                    "the first new token misses new - 1 keys and the last none",
                                    other(pairs - new)),
                "new-only": ("attention is counted among the new tokens only; they also see the "
                             "cached ones", other(new * (new + 1) / 2)),
                "score-only": ("only the scores are counted; weighting the values costs as much "
                               "again", matrices + attention / 2),
                "kv-heads": ("attention is counted with num_kv_heads; every query head does its "
                             "own dot products, shared keys or not",
                             matrices + attention * s.num_kv_heads / s.num_heads),
                "one-layer-attention": ("attention happens in each of config.num_layers layers",
                                        matrices + attention / s.num_layers),
                "no-head-dim": ("a dot product is over head_dim numbers: that factor is missing",
                                matrices + attention / s.head_dim),
                "head-every-token": ("the head is applied to every new token; only the last one of "
                                     "a request needs logits",
                                     want + 2 * batch * (new - 1) * head),
                "head-once": ("each request of the batch has a last token: the head is applied "
                              "`batch` times", want - 2 * (batch - 1) * head),
                "head-forgotten": ("the head is missing", want - 2 * batch * head),
                "attention-one-request": ("attention is counted for one request; each of the batch "
                                          "attends to its own context",
                                          matrices + attention / batch),
                "matrices-one-request": ("the matrix products are counted for one request of the "
                                         "batch", matrices / batch + attention),
                "one-token": ("the layers' weights meet every new token, not one a request",
                              want - 2 * batch * (new - 1) * layers),
            })


# ---------------------------------------------------------------- 4: roofline_time_s


def roofline_time_s(c: Check) -> None:
    """Work on both sides of the ridge, exactly on it, and with one of the two at zero.

    All cases are run before any is judged: taking the minimum and counting only the bytes look the
    same on one side of the ridge.
    """
    cases = []
    for seed in c.seeds(4):
        draw = random.Random(seed)
        peak, bandwidth = draw.uniform(1e13, 2e15), draw.uniform(1e11, 8e12)
        ridge, moved = peak / bandwidth, draw.uniform(1e8, 1e11)
        for intensity in (ridge * draw.uniform(0.01, 0.8), ridge * draw.uniform(1.3, 50), ridge, 0):
            cases.append((intensity * moved, moved, peak, bandwidth))
        cases.append((draw.uniform(1e10, 1e14), 0.0, peak, bandwidth))
    got = [number(c, c.call(*case), "the time") for case in cases]
    times = [(flops / peak, moved / bandwidth) for flops, moved, peak, bandwidth in cases]
    swapped = [max(flops / bandwidth, moved / peak) for flops, moved, peak, bandwidth in cases]
    for key, words, wrong in (
        ("adds", "you add the two times; moving and computing happen at the same time, so the "
                 "longer hides the shorter", [sum(pair) for pair in times]),
        ("minimum", "you take the shorter of the two times; the step ends when the slower of the "
                    "two is done", [min(pair) for pair in times]),
        ("mean", "you take the mean of the two times", [sum(pair) / 2 for pair in times]),
        ("compute-only", "you count the computing time only; where the bytes take longer, they "
                         "decide", [pair[0] for pair in times]),
        ("memory-only", "you count the time of moving only; where the operations take longer, they "
                        "decide", [pair[1] for pair in times]),
        ("swapped-limits", "the limits are swapped: operations are divided by flops_per_s and "
                           "bytes by bytes_per_s", swapped),
        ("milliseconds", "this is in milliseconds; return seconds",
         [1e3 * max(pair) for pair in times]),
        ("inverted", "this is a rate, one over the time; divide the work by the rate",
         [1 / max(pair) for pair in times]),
    ):
        same = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(got, wrong, strict=True))
        c.expect(not same, key, words)
    for value, pair in zip(got, times, strict=True):
        compare(c, value, max(pair), {}, what="the time")


# ---------------------------------------------------------------- 5: critical_batch


def critical_batch(c: Check) -> None:
    """Where a search over the two times finds the crossing, and the cases without one."""
    infinite = ("here no batch turns compute-bound: each further request adds as much time of "
                "moving bytes as of computing, or more. Return math.inf")
    for seed in c.seeds(5):
        draw = random.Random(seed)
        peak, bandwidth = draw.uniform(1e14, 2e15), draw.uniform(1e12, 8e12)
        fixed, flops = draw.uniform(1e9, 1e11), draw.uniform(1e9, 2e11)
        for share in (0.0, draw.uniform(0.05, 0.5), draw.uniform(0.5, 0.95)):
            request = share * flops / peak * bandwidth
            want = _crossing(fixed / bandwidth, request / bandwidth, flops / peak)
            plain = fixed * peak / (bandwidth * flops)
            got = c.call(fixed, request, flops, peak, bandwidth)
            rounded = float(got) if got in (math.floor(want), math.ceil(want)) else want
            compare(c, got, want, {
                "ignores-requests": ("the bytes that each request adds (its cache) are ignored; "
                                     "they push the crossing to a larger batch", plain),
                "adds-requests": ("the bytes of a request work against the crossing: their time is "
                                  "taken off the computing time, not added to it",
                                  fixed / bandwidth / (flops / peak + request / bandwidth)),
                "ridge": ("this is the ridge, peak over bandwidth; the batch also depends on the "
                          "work of a request", peak / bandwidth),
                "inverted": ("this is one over the batch", 1 / want),
                "rounded": ("this is rounded to a whole number; return the crossing itself",
                            rounded),
            }, what="the batch size")
        for share in (1.5, draw.uniform(1.01, 30)):
            request = share * flops / peak * bandwidth
            got = number(c, c.call(fixed, request, flops, peak, bandwidth), "the batch size")
            c.expect(got >= 0, "negative", f"The batch size is {got:.4g}, but {infinite}.")
            c.expect(math.isinf(got), "no-infinity",
                     f"The batch size is {got:.4g}, but {infinite}.")
    # Exactly balanced: powers of two, so that the difference is exactly zero.
    try:
        got = number(c, c.call(2.0**30, 2.0**10, 2.0**20, 2.0**50, 2.0**40), "the batch size")
    except Mistake as mistake:
        if "ZeroDivisionError" in mistake.words:
            raise Mistake("Your code divides by zero where a request adds exactly as much time of "
                          f"moving as of computing: {infinite}.", key="divides-by-zero") from None
        raise
    c.expect(math.isinf(got) and got > 0, "no-infinity",
             f"The batch size is {got:.4g}, but {infinite}.")


def _crossing(start_s: float, moving_s: float, computing_s: float) -> float:
    """The b at which b * computing_s reaches start_s + b * moving_s, by bisection."""

    def behind(b: float) -> bool:
        return b * computing_s < start_s + b * moving_s

    low, high = 0.0, 1.0
    while behind(high):
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if behind(middle) else (low, middle)
    return high
