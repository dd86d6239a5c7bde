"""What Lab 1 demands of the three pieces that make text: top_k, top_p and the loop.

The oracles walk down a sorted list of tokens; the loop runs on a model that is a table and a pick
that reads from a script, so that every call can be looked at. `lab01.py` has the other four pieces.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Check, Mistake


def _same(c: Check, got: Tensor, want: Tensor, **more: Any) -> None:
    """The same tokens kept, and their logits as they were."""
    c.expect_close(got, want, axes=("row", "token"), atol=1e-6, rtol=1e-6, **more)


# ---------------------------------------------------------------- 5: top_k and top_p


def _kept(logits: Tensor, keep: list[list[int]]) -> Tensor:
    """The logits [rows, vocab] with -inf outside the listed tokens of each row."""
    out = torch.full_like(logits, -math.inf)
    for row, tokens in enumerate(keep):
        out[row, tokens] = logits[row, tokens]
    return out


def _ranking(row: Tensor) -> list[int]:
    """Token ids from the most to the least probable."""
    return sorted(range(len(row)), key=lambda t: -float(row[t]))


def _filter_mistakes(logits: Tensor, keep: list[list[int]]) -> dict[str, tuple[str, Tensor]]:
    """Wrong forms of a right selection, common to top_k and top_p."""
    right = _kept(logits, keep)
    return {
        "zeros": ("Dropped tokens get 0, which is a fair chance; give them -inf.",
                  right.nan_to_num(neginf=0.0)),
        "probabilities": ("You return probabilities; return logits, with -inf where dropped.",
                          right.double().exp() / logits.double().exp().sum(-1, keepdim=True)),
        "renormalised": ("The kept logits were changed (renormalised); leave them as they are, the "
                         "draw normalises.", right.double().log_softmax(-1)),
        "renormalised-probabilities": ("You return probabilities; return logits, with -inf where "
                                       "dropped.", right.double().softmax(-1)),
        "returns-sorted": ("The result is in sorted order; every logit stays at its own token.",
                           right.sort(dim=-1, descending=True).values),
    }


def top_k(c: Check) -> None:
    """A different k in every row, then ties and rows that are already filtered."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for vocab, ks in [(11, [4, 1, 7, 10]), (11, [2, 0, 11, 5, 40]), (3, [1]), (257, [50, 0])]:
            logits = 3 * torch.randn(len(ks), vocab, generator=g)
            ranks = [_ranking(row) for row in logits]
            whole = [k if 0 < k < vocab else vocab for k in ks]

            def keeping(counts: list[int], order: list[list[int]] = ranks,
                        x: Tensor = logits) -> Tensor:
                return _kept(x, [r[: max(n, 0)] for r, n in zip(order, counts, strict=True)])

            keep = [r[:n] for r, n in zip(ranks, whole, strict=True)]
            _same(c, c.call(logits, torch.tensor(ks)), _kept(logits, keep), known={
                "one-too-many": ("One token too many is kept in a row: the threshold is the k-th "
                                 "largest, which sits at index k - 1.",
                                 keeping([n + 1 for n in whole])),
                "one-too-few": ("One token too few is kept: the k-th largest itself stays.",
                                keeping([n - 1 for n in whole])),
                "zero-not-off": ("k = 0 means off: the whole row is kept.",
                                 keeping([max(min(k, vocab), 1) for k in ks])),
                "zero-drops-all": ("k = 0 means off, but you drop the whole row.",
                                   keeping([min(k, vocab) for k in ks])),
                "first-row": ("Every row is cut at the first row's k.",
                              keeping(whole[:1] * len(ks))),
                "largest-k": ("Every row is cut at the largest k.",
                              keeping([max(whole)] * len(ks))),
                "keeps-smallest": ("You keep the smallest logits: sort downwards.",
                                   keeping(whole, [r[::-1] for r in ranks])),
            } | _filter_mistakes(logits, keep))
    tied = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, -1.0], [0.5] * 6])
    got = c.call(tied, torch.tensor([2, 1]))
    want = tied.masked_fill(tied < torch.tensor([[2.0], [0.5]]), -math.inf)
    kept = torch.isfinite(got).sum(-1).tolist() if isinstance(got, Tensor) else None
    c.expect(kept != [2, 1], "ties-dropped",
             "Where several logits equal the k-th largest you keep only some; all of them stay, "
             "so that the result does not depend on the order of sorting.")
    _same(c, got, want, what="with ties, the result")
    hole = -math.inf
    filtered = torch.tensor([[hole, 2.0, hole, 1.0, hole], [4.0, 1.0, 3.0, 0.0, 2.0]])
    want = filtered.clone()
    want[1, [1, 3, 4]] = -math.inf
    for rows in (filtered, filtered.T.contiguous().T):  # the second is not contiguous
        _same(c, c.call(rows, torch.tensor([4, 2])), want,
                       what="with logits that are -inf already, the result")


def _nucleus_p(row: Tensor, n: int) -> float:
    """A p whose nucleus holds n tokens, half-way between two sums so that rounding is harmless."""
    probs = row.double().softmax(-1).sort(descending=True).values
    return float(probs[: n - 1].sum() + probs[n - 1] / 2)


def top_p(c: Check) -> None:
    """Nuclei of known size, then p = 1, sums that are exactly p, and filtered rows."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        # sizes of the nuclei; vocab stands for p = 1. First rows of two tokens and more.
        for vocab, sizes in [(13, [4, 2, 6, 3]), (13, [3, 13, 1, 5]), (2, [1]), (400, [60, 1, 9])]:
            logits = 2 * torch.randn(len(sizes), vocab, generator=g)
            ranks = [_ranking(row) for row in logits]
            ps = torch.tensor([1.0 if n == vocab else _nucleus_p(row, n)
                               for row, n in zip(logits, sizes, strict=True)])
            keep = [r[:n] for r, n in zip(ranks, sizes, strict=True)]
            probs = logits.double().softmax(-1)

            def keeping(counts: list[int], order: list[list[int]] = ranks,
                        x: Tensor = logits) -> Tensor:
                return _kept(x, [r[: max(n, 0)] for r, n in zip(order, counts, strict=True)])

            def walked(weights: Tensor, x: Tensor = logits, p: Tensor = ps,
                       upwards: bool = False) -> Tensor:
                """Nuclei by other weights or in the other order."""
                ordered, order = weights.sort(dim=-1, descending=not upwards)
                drop = (ordered.cumsum(-1) - ordered >= p[:, None]) & (p < 1)[:, None]
                return x.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -math.inf)

            def unsorted(inverse: bool, x: Tensor = logits, n: list[int] = sizes,
                         order: list[list[int]] = ranks) -> Tensor:
                drop = torch.arange(x.shape[-1])[None, :] >= torch.tensor(n)[:, None]
                return x.masked_fill(drop.gather(-1, torch.tensor(order)) if inverse else drop,
                                     -math.inf)

            cut = [n if n == vocab else n - 1 for n in sizes]
            _same(c, c.call(logits, ps), _kept(logits, keep), known={
                "crossing-token-dropped": (
                    "The token that takes the sum past p is dropped; it belongs to the nucleus.",
                    keeping(cut)),
                "one-too-many": ("One token after the crossing one is kept too.",
                                 keeping([n + 1 for n in sizes])),
                "first-row": ("Every row is cut at the first row's p.",
                              walked(probs, p=ps[:1].expand(len(ps)))),
                "keeps-smallest": ("You add up from the least probable token: sort downwards.",
                                   walked(probs, upwards=True)),
                "sums-logits": ("You add up logits; add up probabilities.",
                                walked(logits.double())),
                "softmax-axis": ("The probabilities are normalised over the rows; use dim=-1.",
                                 walked(logits.double().softmax(0))),
                "threshold": ("You compare each probability with a threshold; the nucleus is "
                              "about their running sum.", logits.masked_fill(
                                  (probs < 1 - ps[:, None]) & (probs < probs.amax(-1, True)),
                                  -math.inf)),
                "order-not-undone": ("The mask was worked out in sorted order and applied to the "
                                     "unsorted logits; carry it back with scatter.",
                                     unsorted(False)),
                "order-applied-twice": ("The mask was carried back with gather, which sorts it "
                                        "once more; undoing a sort takes scatter.",
                                        unsorted(True)),
            } | _filter_mistakes(logits, keep))
    sure = torch.tensor([[0.0, 40.0, 1.0, 2.0], [5.0, 1.0, 0.0, 2.0]])
    _same(c, c.call(sure, torch.tensor([1.0, 1.0])), sure, known={
        "one-not-off": ("p = 1 must keep the whole row, but where one token is nearly certain the "
                        "rounded sum reaches 1 early and the rest is dropped.",
                        _kept(sure, [[1], [0, 1, 2, 3]]))})
    hole = -math.inf
    even = torch.tensor([[0.7, hole, 0.7, 0.7, 0.7], [0.0, 0.0, hole, 0, 0], [hole, 3, 3, 3, 3]])
    got = c.call(even, torch.tensor([0.5, 0.25, 1.0]))  # four tokens of exactly a quarter each
    c.expect(isinstance(got, Tensor) and got.shape == even.shape, "wrong-shape",
             "The result should have the shape of the logits.")
    kept = torch.isfinite(got).sum(-1).tolist()
    c.expect(kept != [3, 2, 4], "equality",
             "Four tokens of probability 1/4 each and p = 0.5: two of them already sum to p, and "
             "the nucleus is the smallest such set, but you keep three.")
    c.expect(kept == [2, 1, 4], "wrong-count",
             "Four tokens of probability 1/4 each (the fifth is -inf already): p = 0.5, 0.25 and 1 "
             f"should keep 2, 1 and 4 of them; you keep {', '.join(map(str, kept))}.")
    c.expect(bool(((got == even) | (got == hole)).all()), "changed-logits",
             "A kept logit was changed; return it as it was.")


# ---------------------------------------------------------------- 6: the loop


def _drive(c: Check, prompt: list[int], script: list[int], limit: int, stops: frozenset[int],
           seed: int) -> tuple[list[int], list[list[int]], list[int], list[int]]:
    """Run the candidate on a model that is a table and a pick that reads from a script.

    Returns what was yielded, what the model was called with, the positions given to pick, and
    the argmax of every row of logits, which is never what pick chooses.
    """
    calls: list[list[int]] = []
    positions: list[int] = []
    handed: list[Tensor] = []
    g = c.generator(seed)

    def next_logits(tokens: list[int]) -> Tensor:
        c.expect(isinstance(tokens, list), "not-a-list",
                 "`next_logits` takes a list of token ids; you gave it "
                 f"something of type {type(tokens).__name__}.")
        calls.append(list(tokens))
        c.expect(len(calls) <= limit + len(prompt) + 3, "endless",
                 f"The model was run {len(calls)} times for {limit} new tokens, and no end.")
        handed.append(torch.randn(100, generator=g))
        handed[-1][99] = 50.0
        return handed[-1]

    def pick(logits: Tensor, position: int) -> int:
        c.expect(bool(handed) and logits is handed[-1], "other-logits",
                 "`pick` must get the logits that next_logits has just returned, unchanged.")
        positions.append(position)
        return script[(len(positions) - 1) % len(script)]

    before = list(prompt)
    steps = c.call(next_logits, pick, prompt, limit, stops)
    c.expect(steps is not None, "returns-none",
             "The result is None: hand each token out with yield.")
    c.expect(hasattr(steps, "__next__"), "not-an-iterator",
             f"The result is a {type(steps).__name__}; hand each token out with yield as soon as "
             "it is known, so that a reader sees text appear.")
    yielded: list[int] = []
    for token in steps:
        yielded.append(token)
        new = len(yielded)
        c.expect(new > 1 or len(calls) <= 1, "not-lazy",
                 f"The model had run {len(calls)} times before the first token was handed out; "
                 "yield each token as soon as it is picked.")
        c.expect(new <= limit + len(prompt) + 3, "endless", f"{new} tokens, and still more.")
    c.expect(prompt == before, "mutates-input",
             "The caller's prompt has grown: work on a copy, list(prompt).")
    return yielded, calls, positions, [99] * len(calls)


def _cap(words: str) -> str:
    return words[:1].upper() + words[1:]


def _judge(c: Check, prompt: list[int], script: list[int], limit: int, stops: frozenset[int],
           seed: int) -> None:
    yielded, calls, positions, largest = _drive(c, list(prompt), script, limit, stops, seed)
    end = next((i for i, t in enumerate(script[:limit]) if t in stops), None)
    want = script[:limit] if end is None else script[:end]
    told = f"prompt {prompt}, max_new_tokens {limit}, picks {script[:limit]}, stops {sorted(stops)}"
    n = len(yielded)
    if yielded != want:
        stop = script[end] if end is not None else None
        for holds, key, words in [
            (n and yielded == largest[:n], "ignores-pick",
             "you take the largest logit; let `pick` choose the token"),
            (yielded[: len(prompt)] == prompt and n >= len(prompt), "yields-the-prompt",
             "you yield the prompt; yield only the new tokens"),
            (stop is not None and yielded == [*want, stop], "yields-stop",
             "the stop token is yielded; it ends the loop silently"),
            (stop is not None and yielded[: len(want)] == want and stop in yielded, "ignores-stop",
             "the loop goes on after a stop token"),
            (stop is not None and yielded[: len(want)] == want and n > len(want),
             "goes-on-after-stop", "the stop token is held back but the loop goes on after it"),
            (not n and want and stops & set(prompt), "stops-on-prompt",
             "a stop token inside the prompt ends the loop; only a new token may"),
            (n == len(want) + 1, "one-too-many",
             f"{n} tokens where max_new_tokens allows {limit}"),
            (n and n == len(want) - 1, "one-too-few",
             f"{n} tokens where max_new_tokens is {limit} and nothing stopped the loop"),
            (n == limit - len(prompt), "counts-the-prompt",
             "max_new_tokens counts new tokens; you count the prompt's too"),
        ]:
            if holds:
                raise Mistake(f"{_cap(words)} ({told}; you yielded {yielded}).", key)
        raise Mistake(f"With {told}, expected {want}; you yielded {yielded}.", "wrong-tokens")
    picks = len(want) + (end is not None)
    wanted = [prompt + script[:i] for i in range(picks)]
    if calls != wanted:
        for holds, key, words in [
            (len(calls) > picks and calls[:picks] == wanted, "extra-call",
             f"the model ran {len(calls)} times for {picks} picks: the last run is thrown away, "
             "and each one costs as much as a token"),
            (all(call == prompt for call in calls), "forgets-to-append",
             "the model sees the prompt alone every time: append each new token to the sequence"),
            (all(call == [t] for call, t in zip(calls[1:], script, strict=False)),
             "only-the-newest", "after the first step the model sees only the newest token; "
             "without a cache it needs the whole sequence"),
        ]:
            if holds:
                raise Mistake(f"{_cap(words)} ({told}).", key)
        at = next((i for i, w in enumerate(wanted) if i >= len(calls) or calls[i] != w), picks)
        raise Mistake(f"With {told}, run {at} of the model should see {wanted[at:at + 1]}; you "
                      f"gave it {calls[at:at + 1]}.", "wrong-sequence")
    right = [len(prompt) + i for i in range(picks)]
    if positions != right:
        words = (f"`pick` got positions {positions}, expected {right}: the index that the new "
                 "token will have in the whole sequence.")
        key = {tuple(range(picks)): "position-of-step",
               tuple(p - 1 for p in right): "position-of-last",
               (len(prompt),) * picks: "position-constant"}.get(tuple(positions), "wrong-position")
        raise Mistake(words, key)


def recompute_loop(c: Check) -> None:
    """A scripted model and pick: what is yielded, what the model sees, where and how often."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        prompt = torch.randint(0, 40, (4,), generator=g).tolist()
        script = torch.randint(40, 90, (9,), generator=g).tolist()
        stopped = [*script[:3], 95, *script[4:]]
        _judge(c, prompt, script, 6, frozenset(), seed)
        _judge(c, prompt, script, 6, frozenset({95, 96}), seed)
        _judge(c, prompt, stopped, 8, frozenset({95, 96}), seed)
        _judge(c, [prompt[0]], [96, *script], 5, frozenset({95, 96}), seed)  # stops at once
        _judge(c, [*prompt, 95, 7], script, 5, frozenset({95}), seed)  # a stop token in the prompt
        _judge(c, prompt, [*script[:4], 95], 5, frozenset({95}), seed)  # stops at the very end
        _judge(c, prompt, script, 1, frozenset({95}), seed)
        _judge(c, prompt, script, 0, frozenset({95}), seed)
    # Two requests at once: nothing may be shared between them.
    loops = [c.call(lambda t: torch.tensor(float(len(t))), lambda x, at: 10 * int(x) + at % 10,
                    [1] * n, 3, frozenset()) for n in (2, 5)]
    got = [[next(loop) for loop in loops] for _ in range(3)]
    c.expect(got == [[22, 55], [33, 66], [44, 77]], "shared-state",
             "Two loops that run side by side disturb each other: keep the sequence in a variable "
             "of the function.")
