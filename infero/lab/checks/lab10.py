"""What Lab 10 demands of its four pieces, and the mistakes it knows by name.

The counts are compared with an engine of nothing but remaining lengths, run pass by pass; token
masks with one bit looked up at a time. `lab10_pack.py` has the check of pack, which is named here
too. Chapter 10 explains the pieces.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab03_tools import number
from infero.lab.checks.lab10_pack import pack

__all__ = ["continuous_steps", "pack", "static_steps", "token_mask"]

Count = Callable[[Sequence[int], int], float]

# ---------------------------------------------------------------- 1: counting passes


def _run(lengths: Sequence[int], slots: int, refill: bool) -> int:
    """Passes until every request is done, by running each of them."""
    waiting = list(lengths)
    running: list[int] = []
    passes = 0
    while waiting or running:
        if refill or not running:
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        passes += 1
    return passes


def _groups(lengths: Sequence[int], slots: int) -> list[list[int]]:
    return [list(lengths[i : i + slots]) for i in range(0, len(lengths), slots)]


def _dealt(lengths: Sequence[int], slots: int) -> int:
    return max(sum(lengths[i::slots]) for i in range(slots))


_STATIC: dict[str, tuple[str, Count]] = {
    "continuous-for-static": (
        "you refill a slot as soon as it is free; in static batching the whole group runs until "
        "its longest request ends, and only then does the next group start.",
        lambda n, k: _run(n, k, True)),
    "one-after-another": ("you add up all lengths, as if the requests ran one after another.",
                          lambda n, k: sum(n)),
    "shortest-of-group": ("a group ends with its longest request, not with its shortest.",
                          lambda n, k: sum(min(g) for g in _groups(n, k))),
    "first-of-group": ("you count the first request of each group; the group waits for its "
                       "longest.", lambda n, k: sum(g[0] for g in _groups(n, k))),
    "mean-of-group": ("you count the mean length of each group; it waits for its longest.",
                      lambda n, k: sum(sum(g) / len(g) for g in _groups(n, k))),
    "longest-of-all": ("every group is charged with the longest request of all; each group waits "
                       "for its own longest.", lambda n, k: len(_groups(n, k)) * max(n)),
    "last-group-dropped": ("the last group is smaller than the others, and you leave it out.",
                           lambda n, k: sum(max(g) for g in _groups(n, k) if len(g) == k)),
    "sorted-first": ("you sort the requests by length before you group them; they are served in "
                     "the order given.", lambda n, k: sum(max(g) for g in _groups(sorted(n), k))),
    "strided": ("you put every `slots`-th request into a group; a group is the next `slots` "
                "requests in order.",
                lambda n, k: sum(max(n[i :: len(_groups(n, k))]) for i in range(len(_groups(n, k))))
                ),
    "groups-for-size": ("you make `slots` groups; `slots` is the size of a group.",
                        lambda n, k: sum(max(g) for g in _groups(n, -(-len(n) // k)))),
    "longest-group-only": ("you return the longest request of all; the groups run one after "
                           "another, so their times add up.", lambda n, k: max(n)),
    "all-slots-added": ("a group's requests share each pass: count its longest once, not once for "
                        "every slot.", lambda n, k: sum(k * max(g) for g in _groups(n, k))),
}

_CONTINUOUS: dict[str, tuple[str, Count]] = {
    "static-for-continuous": (
        "you wait for the longest of a group before the next requests start; here each slot is "
        "refilled in the pass after its request ended.", lambda n, k: _run(n, k, False)),
    "even-share": ("you divide the total by the slots: that is what a perfect packing needs, but a "
                   "request cannot be split over two slots.", lambda n, k: math.ceil(sum(n) / k)),
    "even-share-rounded-down": ("you divide the total by the slots: that is what a perfect packing "
                                "needs, but a request cannot be split over two slots.",
                                lambda n, k: sum(n) // k),
    "dealt-in-turn": ("request i always goes to slot i % slots; the next request takes the slot "
                      "that is free first.", _dealt),
    "shortest-first": ("you serve the shortest requests first; they are served in the order given.",
                       lambda n, k: _run(sorted(n), k, True)),
    "longest-first": ("you serve the longest requests first; they are served in the order given.",
                      lambda n, k: _run(sorted(n, reverse=True), k, True)),
    "one-idle-pass": ("each slot stays empty for one pass before it is refilled; the next request "
                      "joins in the very next pass.", lambda n, k: max(_ends(n, k, 1))),
    "same-pass": ("a freed slot is refilled in the pass that ended its request; the next request "
                  "joins one pass later.", lambda n, k: max(_ends(n, k, -1))),
    "one-after-another": ("you add up all lengths, as if the requests ran one after another.",
                          lambda n, k: sum(n)),
    "first-free-for-last": ("you return when the first slot runs empty; the last token comes when "
                            "the last one does.", lambda n, k: min(_ends(n, k))),
    "last-started": ("you return the end of the request that started last; an earlier one may run "
                     "longer.", lambda n, k: _last_end(n, k)),
}


def _ends(lengths: Sequence[int], slots: int, gap: int = 0) -> list[int]:
    """When each slot is done, if refilling one costs `gap` passes."""
    ends = [0] * slots
    for n in lengths:
        at = ends.index(min(ends))
        ends[at] += n + (gap if ends[at] else 0)
    return ends


def _last_end(lengths: Sequence[int], slots: int) -> int:
    ends, last = [0] * slots, 0
    for n in lengths:
        at = ends.index(min(ends))
        ends[at] += n
        last = ends[at]
    return last


def static_steps(c: Check) -> None:
    _steps(c, False, _STATIC)


def continuous_steps(c: Check) -> None:
    _steps(c, True, _CONTINUOUS)


def _steps(c: Check, refill: bool, known: dict[str, tuple[str, Count]]) -> None:
    """Random lengths; the mistake named is one that explains every answer, right and wrong."""
    answers = []
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for count, slots in ((13, 4), (8, 4), (9, 2), (3, 5), (30, 7), (6, 1), (1, 3), (0, 4)):
            lengths = [1 + int(draw.expovariate(1 / 9)) for _ in range(count)]
            given: Sequence[int] = tuple(lengths) if draw.random() < 0.3 else list(lengths)
            got = number(c, c.call(given, slots), "the number of passes")
            c.expect(list(given) == lengths, "mutates-input",
                     "Your function changes the list `lengths`; it belongs to the caller. Work on "
                     "a copy.")
            answers.append((lengths, slots, got, _run(lengths, slots, refill)))
    wrong = [answer for answer in answers if answer[2] != answer[3]]
    if wrong:
        _name(answers, wrong, known)
    draw = random.Random(1)
    c.sample = (([draw.randrange(1, 256) for _ in range(2000)], 16), {})


def _name(answers: list[tuple[list[int], int, float, int]],
          wrong: list[tuple[list[int], int, float, int]],
          known: dict[str, tuple[str, Count]]) -> None:
    lengths, slots, got, want = min(wrong, key=lambda answer: len(answer[0]))
    shown = f"Requests of lengths {lengths} in {slots} slots take {want} passes; you say {got:g}."
    for key, (words, count) in known.items():
        if all(abs(count(n, k) - mine) < 1e-9 for n, k, mine, _ in answers if n):
            raise Mistake(words[:1].upper() + words[1:], key=key, details=[shown])
    off = {mine - right for n, _, mine, right in answers if n}
    if off in ({1.0}, {-1.0}):
        less = "few" if off == {-1.0} else "many"
        raise Mistake(f"One pass too {less}: a request of length n takes part in exactly n passes.",
                      key="off-by-one", details=[shown])
    raise Mistake(shown, key="wrong-values")


# ---------------------------------------------------------------- 3: token_mask


def _bits(mask: Tensor, vocab: int, place: Callable[[int], tuple[int, int]]) -> Tensor:
    """[rows, vocab] bool: bit `place(t)` = (word, bit) of each row, one by one."""
    rows = [[int(word) & 0xFFFFFFFF for word in row] for row in mask]
    found = []
    for row in rows:
        where = [place(t) for t in range(vocab)]
        found.append([bool(row[w] >> b & 1) if w < len(row) else False for w, b in where])
    return torch.tensor(found, dtype=torch.bool)


def _mask_mistakes(logits: Tensor, mask: Tensor, right: Tensor) -> dict[str, tuple[str, Any]]:
    rows, vocab = logits.shape
    words = mask.shape[1]

    def kept(allowed: Tensor) -> Tensor:
        return logits.masked_fill(~allowed, -math.inf)

    def read(place: Callable[[int], tuple[int, int]]) -> Tensor:
        return kept(_bits(mask, vocab, place))

    good = kept(right)
    signless = right.clone()
    signless[:, 31::32] = False
    return {
        "inverted": ("You forbid the tokens whose bit is 1; those are the allowed ones.",
                     kept(~right)),
        "big-end-first": ("The bits of each word are read from the wrong end: token 0 is the least "
                          "significant bit of word 0.", read(lambda t: (t // 32, 31 - t % 32))),
        "bytes-swapped": ("The four bytes of each word are read from the wrong end.",
                          read(lambda t: (t // 32, 8 * (3 - t % 32 // 8) + t % 8))),
        "words-across": ("Word and bit have changed places: token t is bit t % 32 of word t // 32.",
                         read(lambda t: (t % words, t // words))),
        "one-word-late": ("You start at the second word.", read(lambda t: (t // 32 + 1, t % 32))),
        "first-row": ("Every row is masked with the first row's bits.",
                      kept(right[:1].expand(rows, vocab))),
        "sign-bit": ("Tokens 31, 63, ... are wrong: their bit is the sign of the int32, and a "
                     "negative word needs & 1 after the shift, not a comparison with 1.",
                     kept(signless)),
        "zeros": ("Forbidden tokens get 0, which is a fair chance; give them -inf.",
                  good.nan_to_num(neginf=0.0)),
        "large-negative": ("Forbidden tokens get a large negative number. With another such number "
                           "in the row that is no ban; give them -inf.",
                           lambda: good.nan_to_num(neginf=-1e9)),
        "probabilities": ("You return probabilities; return logits, the draw normalises.",
                          good.double().softmax(-1)),
        "returns-mask": ("You return the mask; return the logits with -inf where it forbids.",
                         right.double()),
        "multiplied": ("You multiply logits and mask: a forbidden token gets 0, which is a fair "
                       "chance. Give it -inf.", logits * right),
    }


def token_mask(c: Check) -> None:
    """Vocabularies with and without a tail, sign bits, empty and full rows, two dtypes."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for rows, vocab, dtype in ((3, 71, torch.float32), (1, 64, torch.bfloat16),
                                   (2, 33, torch.float32), (4, 160, torch.float16),
                                   (2, 5, torch.float32)):
            logits = (3 * torch.randn(rows, vocab, generator=g)).to(dtype)
            mask = torch.randint(-2**31, 2**31, (rows, -(-vocab // 32)), generator=g,
                                 dtype=torch.int64).to(torch.int32)
            right = _bits(mask, vocab, lambda t: (t // 32, t % 32))
            got = c.call(logits, mask)
            _tolerate_wide_mistakes(c, got, logits, mask, right)
    logits = torch.randn(3, 96, generator=c.generator(5))
    mask = torch.zeros(3, 3, dtype=torch.int32)
    mask[1], mask[2, 1] = -1, torch.tensor(-2**31, dtype=torch.int32)  # all; token 63 alone
    right = _bits(mask, 96, lambda t: (t // 32, t % 32))
    _tolerate_wide_mistakes(c, c.call(logits, mask), logits, mask, right)
    g = c.generator(6)
    c.call(torch.randn(8, 49_152, generator=g),
           torch.randint(-2**31, 2**31, (8, 1536), generator=g).to(torch.int32))


def _tolerate_wide_mistakes(c: Check, got: Any, logits: Tensor, mask: Tensor, right: Tensor
                            ) -> None:
    want = logits.masked_fill(~right, -math.inf)
    known = _mask_mistakes(logits, mask, right)
    if isinstance(got, Tensor) and got.shape == want.shape:
        finite = got[~right].double()
        c.expect(not len(finite) or not bool((finite < -200).all() and torch.isfinite(finite).all()
                                             and torch.equal(got[right], logits[right])),
                 "large-negative", known["large-negative"][0])
    telling = {key: (words, wrong) for key, (words, wrong) in known.items()
               if not callable(wrong) and not torch.equal(wrong.to(want.dtype), want)}
    c.expect_close(got, want, axes=("row", "token"), atol=0.0, rtol=0.0, known=telling)
