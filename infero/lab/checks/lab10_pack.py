"""What Lab 10 demands of pack: the arrays of a ragged step, worked out token by token."""

from __future__ import annotations

import random
from typing import Any

from infero.lab.checking import Check, Mistake
from infero.runner import Ragged, Span

FIELDS = ("ids", "positions", "slots", "query_lens", "context_lens", "rows")
Fields = dict[str, list[int]]


def random_spans(draw: random.Random, shape: list[tuple[int, int, bool]], size: int) -> list[Span]:
    """Spans of (start, new tokens, samples) over blocks in no order."""
    blocks = [-(-(start + n) // size) + draw.randrange(2) for start, n, _ in shape]
    numbers = draw.sample(range(2 * sum(blocks) + 3), sum(blocks))
    spans = []
    for (start, n, samples), count in zip(shape, blocks, strict=True):
        table, numbers = numbers[:count], numbers[count:]
        spans.append(Span([draw.randrange(500) for _ in range(n)], start, table, samples))
    return spans


def laid_out(spans: list[Span], size: int) -> Fields:
    """The right answer, one token at a time."""
    out: Fields = {name: [] for name in FIELDS}
    for span in spans:
        for i, token in enumerate(span.tokens):
            place = span.start + i
            out["ids"].append(token)
            out["positions"].append(place)
            out["slots"].append(span.block_table[place // size] * size + place % size)
            if i == len(span.tokens) - 1 and span.samples:
                out["rows"].append(len(out["ids"]) - 1)
        out["query_lens"].append(len(span.tokens))
        out["context_lens"].append(span.start + len(span.tokens))
    return out


def _mistakes(spans: list[Span], right: Fields, size: int) -> dict[str, tuple[str, Fields]]:
    """Wrong forms of single fields: key -> (words, the fields that come out differently)."""
    lens, longest = right["query_lens"], max(right["query_lens"])
    ends = [sum(lens[: i + 1]) for i in range(len(lens))]
    padded: list[int] = []
    for span in spans:
        padded += span.tokens + [0] * (longest - len(span.tokens))
    last = [n - 1 for n in lens]
    samples = [i for i, span in enumerate(spans) if span.samples]
    return {
        "padded": ("You fill every span up to the longest one. Nothing is padded: the next span "
                   "follows right after the last token of the one before.", {"ids": padded}),
        "sorted": ("You changed the order of the spans; the plan and the block tables rely on it.",
                   {"ids": [t for s in sorted(spans, key=lambda s: len(s.tokens))
                            for t in s.tokens]}),
        "sorted-longest-first": (
            "You changed the order of the spans; the plan and the block tables rely on it.",
            {"ids": [t for s in sorted(spans, key=lambda s: -len(s.tokens)) for t in s.tokens]}),
        "positions-of-batch": (
            "The positions count on through the whole batch; each token's position is that in its "
            "own request, and its first new token stands at span.start.",
            {"positions": list(range(len(right["ids"])))}),
        "positions-from-zero": (
            "The positions of each span start at 0; its first new token stands at span.start.",
            {"positions": [i for s in spans for i in range(len(s.tokens))]}),
        "positions-from-one": (
            "Every position is one too large: the first new token stands at span.start itself.",
            {"positions": [p + 1 for p in right["positions"]]}),
        "slots-are-positions": (
            "The slots are the positions; look them up in the request's block table "
            "(pool_module.slots_of).", {"slots": right["positions"]}),
        "slots-of-batch": (
            "The slots count on from 0; look them up in the request's block table "
            "(pool_module.slots_of).", {"slots": list(range(len(right["ids"])))}),
        "slots-from-zero": (
            "The slots are those of positions 0 and following; the new tokens start at span.start, "
            "and what lies before them is in the cache already.",
            {"slots": [s.block_table[i // size] * size + i % size
                       for s in spans for i in range(len(s.tokens))]}),
        "context-without-new": (
            "context_lens counts the tokens in the cache once the new ones are written: "
            "span.start plus the number of new tokens.",
            {"context_lens": [s.start for s in spans]}),
        "context-only-new": (
            "context_lens counts only the new tokens; add those that are in the cache already.",
            {"context_lens": lens}),
        "context-one-less": (
            "context_lens is one too small: it is a number of tokens, not the last position.",
            {"context_lens": [n - 1 for n in right["context_lens"]]}),
        "cumulative": (
            "query_lens holds running totals; give the number of new tokens of each span.",
            {"query_lens": ends}),
        "cumulative-starts": (
            "query_lens holds running totals; give the number of new tokens of each span.",
            {"query_lens": [0, *ends]}),
        "rows-of-all": (
            "You ask for logits after every span; a span with samples=False is a piece of a prompt "
            "that goes on, and nobody needs its logits.", {"rows": [e - 1 for e in ends]}),
        "rows-one-late": (
            "Each row is one too large: the last token of a span is the one before the next span "
            "begins.", {"rows": [ends[i] for i in samples]}),
        "rows-at-starts": (
            "You give the first token of each span; its last one predicts the next token.",
            {"rows": [ends[i] - lens[i] for i in samples]}),
        "rows-within-span": (
            "The rows count from the beginning of each span; count through the whole batch.",
            {"rows": [last[i] for i in samples]}),
        "rows-of-every-token": (
            "You ask for logits after every token; only the last one of each sampling span is "
            "needed.", {"rows": list(range(len(right["ids"])))}),
        "rows-are-spans": (
            "The rows are numbers of spans; give the place of the span's last token in `ids`.",
            {"rows": samples}),
    }


def pack(c: Check) -> None:
    """Prefill chunks, decodes and cached starts mixed, spans that do not sample, blocks of 1."""
    shapes = [
        [(0, 5, True), (7, 1, True), (16, 1, True), (3, 4, False)],
        [(0, 9, False), (12, 3, True), (5, 1, True)],
        [(6, 1, True), (0, 1, True), (31, 1, True)],
        [(10, 7, True)],
        [(0, 3, False), (8, 8, False)],
        [(2, 2, True), (0, 16, True), (4, 1, False), (19, 6, True), (1, 1, True)],
    ]
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for size, shape in ((s, shape) for shape in shapes for s in (4, 16, 1)):
            spans = random_spans(draw, shape, size)
            kept = [(list(s.tokens), s.start, list(s.block_table), s.samples) for s in spans]
            first = c.call(spans, size)
            for span, (tokens, start, table, samples) in zip(spans, kept, strict=True):
                same = (span.tokens, span.start, span.block_table, span.samples) == (
                    tokens, start, table, samples)
                c.expect(same, "mutates-input",
                         "Your function changes a span that it was given. If you start from its "
                         "list (ids = span.tokens) and then use +=, you extend that very list: "
                         "start from an empty one.")
            _judge(first, spans, size)
    _judge(c.call([], 16), [], 16)
    draw = random.Random(2)
    c.sample = ((random_spans(draw, [(0, 512, True)] + [(200, 1, True)] * 32, 16), 16), {})


def _judge(got: Any, spans: list[Span], size: int) -> None:
    if got is None:
        raise Mistake("The result is None: does your function end in `return`?", key="returns-none")
    if not isinstance(got, Ragged):
        raise Mistake(f"Return a Ragged; you gave a {type(got).__name__}.", key="wrong-type")
    right = laid_out(spans, size)
    mine: Fields = {}
    for name in FIELDS:
        value = getattr(got, name)
        try:
            mine[name] = [int(v) for v in value]
        except (TypeError, ValueError):
            raise Mistake(f"Ragged.{name} should be a flat list of ints; it is {value!r}.",
                          key="wrong-type") from None
    if mine == right:
        return
    known = _mistakes(spans, right, size) if spans else {}
    for key, (words, wrong) in known.items():
        if all(mine[name] == value != right[name] for name, value in wrong.items()):
            raise Mistake(words, key=key, details=_differences(mine, right, spans))
    raise Mistake(_differences(mine, right, spans)[0], key="wrong-values",
                  details=_differences(mine, right, spans)[1:2])


def _differences(mine: Fields, right: Fields, spans: list[Span]) -> list[str]:
    found = []
    for name in FIELDS:
        if mine[name] != right[name]:
            found.append(f"{name} should be {_short(right[name])}; yours is {_short(mine[name])}.")
    shape = ", ".join(f"{len(s.tokens)} from position {s.start}" for s in spans) or "none"
    return [found[0], f"The spans (new tokens each): {shape}."]


def _short(values: list[int]) -> str:
    return str(values) if len(values) <= 24 else f"{str(values[:24])[:-1]}, …]"
