"""What Lab 11 demands of its five pieces, and the mistakes it knows by name.

Each check asks the candidate many questions and then compares all of its answers at once: with the
right ones, and with those that each known mistake would have given. Nothing runs a model or an
engine. Chapter 11 explains the pieces.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab11_keys import priority_first, shortest_first
from infero.lab.checks.lab11_tools import equal, judge
from infero.request import Request

__all__ = ["may_admit", "pick_victim", "priority_first", "share_budget", "shortest_first"]

# ---------------------------------------------------------------- 3: share_budget

Shares = Callable[[list[int], int, int | None], list[int]]


def _deal(wants: list[int], budget: int, most: int | None) -> list[int]:
    """The definition, one token at a time: first a round, then each in turn until it has enough."""
    caps = [w if most is None else min(w, most) for w in wants]
    grants = [0] * len(wants)
    rounds = [i for i, cap in enumerate(caps) if cap > 0]
    rest = [i for i, cap in enumerate(caps) for _ in range(cap - 1)]
    for i in (rounds + rest)[:budget]:
        grants[i] += 1
    return grants


def _in_order(wants: list[int], budget: int, most: int | None) -> list[int]:
    grants = []
    for w in wants:
        n = min(w, budget if most is None else most, budget)
        grants.append(n)
        budget -= n
    return grants


def _all_or_nothing(wants: list[int], budget: int, most: int | None) -> list[int]:
    grants = _deal(wants, budget, 1)
    left = budget - sum(grants)
    for i, w in enumerate(wants):
        more = min(w, most or w) - grants[i]
        if 0 < more <= left:
            grants[i] += more
            left -= more
    return grants


def _ones_free(wants: list[int], budget: int, most: int | None) -> list[int]:
    """The first round is not taken off the budget."""
    grants, left = _deal(wants, budget, 1), budget
    for i, w in enumerate(wants):
        more = max(0, min(min(w, most or w) - grants[i], left))
        grants[i] += more
        left -= more
    return grants


def _chunk_on_top(wants: list[int], budget: int, most: int | None) -> list[int]:
    return _deal(wants, budget, None if most is None else most + 1)


def _round_robin(wants: list[int], budget: int, most: int | None) -> list[int]:
    caps, grants = [min(w, most or w) for w in wants], [0] * len(wants)
    while budget and any(g < cap for g, cap in zip(grants, caps, strict=True)):
        for i, cap in enumerate(caps):
            if grants[i] < cap and budget:
                grants[i] += 1
                budget -= 1
    return grants


def _sorted(backwards: bool) -> Shares:
    def share(wants: list[int], budget: int, most: int | None) -> list[int]:
        order = sorted(range(len(wants)), key=lambda i: -wants[i] if backwards else wants[i])
        grants = [0] * len(wants)
        for i, n in zip(order, _deal([wants[i] for i in order], budget, most), strict=True):
            grants[i] = n
        return grants

    return share


def _one_for_all(wants: list[int], budget: int, most: int | None) -> list[int]:
    """Also those that want nothing get one."""
    grants = _deal([max(w, 1) for w in wants], budget, most)
    return grants


def _last_first(wants: list[int], budget: int, most: int | None) -> list[int]:
    return _deal(wants[::-1], budget, most)[::-1]


BUDGETS: tuple[tuple[list[int], int, int | None], ...] = (
    ([1, 1, 1, 500], 64, None), ([500, 1, 1, 1], 64, None), ([500, 1, 300, 1, 200], 256, 100),
    ([700, 1, 1], 512, 512), ([3, 0, 5, 0, 1], 100, None), ([3, 0, 5, 0, 1], 6, None),
    ([9, 9, 9, 9], 3, None), ([9, 9, 9, 9], 4, 2), ([40], 16, None), ([40], 16, 8), ([], 16, None),
    ([2, 7, 1], 0, None), ([1, 1, 1, 1], 10, 1), ([30, 20, 10], 25, None), ([5, 60, 5], 40, None),
)


def share_budget(c: Check) -> None:
    """Decoding requests beside long prompts, small and large budgets, chunk limits, nobody."""
    cases, answers = list(BUDGETS), []
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for _ in range(6):
            wants = [draw.choice([0, 1, 1, 1, draw.randint(2, 9), draw.randint(50, 400)])
                     for _ in range(draw.randint(1, 9))]
            cases.append((wants, draw.randint(1, 300), draw.choice([None, draw.randint(1, 90)])))
    for wants, budget, most in cases:
        given = list(wants)
        got = c.call(given, budget, most) if most is not None else c.call(given, budget)
        c.expect(given == wants, "mutates-input", "Your function changes `wants`.")
        answers.append(_grants(c, got, wants))
    for (wants, budget, most), got in zip(cases, answers, strict=True):
        _fits(c, got, wants, budget, most, cases, answers)
    judge(cases, answers, _deal, KNOWN_SHARES, _say_shares, equal)


KNOWN_SHARES: dict[str, tuple[str, Shares]] = {
    "prompt-blocks-decodes": ("each takes all it wants in turn, so a long prompt in front leaves "
                              "nothing for those behind it that need one token: give everybody "
                              "one first", _in_order),
    "round-robin": ("what is left is dealt evenly, so every prompt is slow; top them up in order, "
                    "the first one first", _round_robin),
    "chunk-ignored": ("max_chunk is not respected", lambda w, b, m: _deal(w, b, None)),
    "chunk-on-top": ("the first token counts toward max_chunk too; yours grants max_chunk more",
                     _chunk_on_top),
    "ones-only": ("only the first round happens: what is left of the budget is lost",
                  lambda w, b, m: _deal(w, b, 1)),
    "all-or-nothing": ("a prompt that does not fit into what is left gets no more than its first "
                       "token; it should get what there is, as a chunk", _all_or_nothing),
    "one-for-nothing": ("a request that wants 0 gets a token", _one_for_all),
    "smallest-first": ("the requests are served by what they want; serve them in the order given",
                       _sorted(False)),
    "largest-first": ("the requests are served by what they want, the largest first; serve them in "
                      "the order given", _sorted(True)),
    "last-first": ("the requests are served from the back", _last_first),
}


def _grants(c: Check, got: Any, wants: list[int]) -> list[int]:
    if got is None:
        raise Mistake("Your function returns None: does it end in `return`?", key="returns-none")
    if not isinstance(got, (list, tuple)) or any(int(n) != n for n in got):
        raise Mistake(f"Return a list of whole numbers, one a request; you gave {got!r}.",
                      key="wrong-type")
    c.expect(len(got) == len(wants), "wrong-length",
             f"You give {len(got)} grants to {len(wants)} requests; give 0 where there is none.")
    return [int(n) for n in got]


def _say_case(wants: list[int], budget: int, most: int | None) -> str:
    return f"wants {wants}, budget {budget}, max_chunk {most}"


def _say_shares(got: list[int], want: list[int], wants: list[int], budget: int, most: int | None
                ) -> str:
    return f"For {_say_case(wants, budget, most)} you grant {got}; it should be {want}."


def _fits(c: Check, got: list[int], wants: list[int], budget: int, most: int | None,
          cases: list[tuple[list[int], int, int | None]], answers: list[list[int]]) -> None:
    """What no sharing may do; a known mistake that does it is named."""
    where = f"For {_say_case(wants, budget, most)} you grant {got}"
    if sum(got) > budget:
        ones = all(a == _ones_free(*case) for a, case in zip(answers, cases, strict=True))
        raise Mistake(f"{where}, {sum(got)} tokens in all: more than the budget."
                      + (" The first round is not taken off it." if ones else ""),
                      key="over-budget")
    c.expect(min(got, default=0) >= 0, "negative", f"{where}: a grant below zero.")
    spare = [i for i, (g, w) in enumerate(zip(got, wants, strict=True)) if g > w]
    if spare and not all(a == _one_for_all(*case) for a, case in zip(answers, cases, strict=True)):
        raise Mistake(f"{where}: request {spare[0]} gets more than it wants.", key="over-want")


# ---------------------------------------------------------------- 4: pick_victim

Choice = Callable[[list[Request], dict[str, float]], Request]


def running_set(draw: random.Random, n: int, ties: bool) -> tuple[list[Request], dict[str, float]]:
    """Running requests in no particular order, and the key of each by its id."""
    admitted = draw.sample(range(1, 500), n)
    choices = [draw.uniform(0, 9) for _ in range(2 if ties else n)]
    running, keys = [], {}
    for i in range(n):
        request = Request(f"r{i}", [1] * draw.randint(2, 60), 2, 9, arrival_s=draw.uniform(0, 99),
                          priority=draw.randint(0, 9), admitted=admitted[i],
                          key=draw.uniform(0, 9), number=draw.randint(1, 999))
        request.block_table = list(range(draw.randint(1, 30)))
        request.computed = draw.randint(1, len(request.tokens))
        keys[request.id] = draw.choice(choices) if ties else choices[i]
        running.append(request)
    return running, keys


def _most(measure: Callable[[Request, dict[str, float]], Any]) -> Choice:
    return lambda running, keys: max(running, key=lambda r: measure(r, keys))


VICTIMS: dict[str, tuple[str, Choice]] = {
    "first-served": ("you take the request that the policy would serve first; the smallest key "
                     "goes first, so the victim has the largest",
                     lambda running, keys: min(running, key=lambda r: (keys[r.id], -r.admitted))),
    "first-served-tie": ("you take the request that the policy would serve first; the smallest "
                         "key goes first, so the victim has the largest",
                         lambda running, keys: min(running, key=lambda r: (keys[r.id],
                                                                           r.admitted))),
    "first-served-list": ("you take the request that the policy would serve first; the smallest "
                          "key goes first, so the victim has the largest",
                          lambda running, keys: min(running, key=lambda r: keys[r.id])),
    "earliest-of-equals": ("of equal keys you take the one admitted first, which has done the most "
                           "work; take the one admitted last",
                           _most(lambda r, keys: (keys[r.id], -r.admitted))),
    "tie-by-list": ("of equal keys you take the first in the list; take the one with the largest "
                    "`admitted`", _most(lambda r, keys: keys[r.id])),
    "tie-by-list-end": ("of equal keys you take the last in the list; take the one with the "
                        "largest `admitted`",
                        lambda running, keys: sorted(running, key=lambda r: keys[r.id])[-1]),
    "tie-by-arrival": ("of equal keys you take the one that arrived last; take the one admitted "
                       "last (`admitted`): it has lost its place before, or has done the least",
                       _most(lambda r, keys: (keys[r.id], r.arrival_s))),
    "last-in-list": ("you take the last of the list, whatever the key says",
                     lambda running, keys: running[-1]),
    "first-in-list": ("you take the first of the list, whatever the key says",
                      lambda running, keys: running[0]),
    "latest-admitted": ("you take the one admitted last, whatever the key says",
                        _most(lambda r, keys: r.admitted)),
    "own-key": ("you read request.key; ask the function key(request) that you were given",
                _most(lambda r, keys: (r.key, r.admitted))),
    "own-key-tie": ("you read request.key; ask the function key(request) that you were given",
                    _most(lambda r, keys: r.key)),
    "most-blocks": ("you take the one that holds the most blocks; the policy decides",
                    _most(lambda r, keys: len(r.block_table))),
    "least-computed": ("you take the one that has computed the least; the policy decides",
                       lambda running, keys: min(running, key=lambda r: r.computed)),
}


def pick_victim(c: Check) -> None:
    """One to nine requests in any order, with and without equal keys."""
    cases, answers = [], []
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for n, ties in ((1, False), (2, False), (2, True), (5, False), (6, True), (9, True),
                        (7, True)):
            running, keys = running_set(draw, n, ties)
            given = list(running)
            got = c.call(given, lambda r, keys=keys: keys[r.id])
            c.expect(len(given) == len(running)
                     and all(a is b for a, b in zip(given, running, strict=False)),
                     "mutates-input",
                     "Your function changes the list of running requests; the scheduler takes the "
                     "victim out itself.")
            if not isinstance(got, Request):
                raise Mistake(f"Return the request itself; you gave {got!r}.", key="wrong-type")
            cases.append((running, keys))
            answers.append(got)

    def right(running: list[Request], keys: dict[str, float]) -> Request:
        worst = max(keys[r.id] for r in running)
        return sorted((r for r in running if keys[r.id] == worst), key=lambda r: r.admitted)[-1]

    def words(got: Request, want: Request, running: list[Request], keys: dict[str, float]) -> str:
        shown = ", ".join(f"{r.id} (key {keys[r.id]:.2f}, admitted {r.admitted})" for r in running)
        return f"Of {shown} you take {got.id}; it should be {want.id}."

    judge(cases, answers, right, VICTIMS, words, lambda a, b: a is b)


# ---------------------------------------------------------------- 5: may_admit

ADMISSIONS: dict[str, tuple[str, Callable[[int, int, int, int], bool]]] = {
    "no-watermark": ("the watermark is ignored", lambda n, f, w, r: n <= f),
    "always-watermark": ("the watermark is demanded even when nothing runs: a request that needs "
                         "nearly the whole pool would then wait for ever, with nobody to wait for",
                         lambda n, f, w, r: f - n >= w),
    "strict": ("exactly `watermark` blocks left free is enough: at least, not more than",
               lambda n, f, w, r: f - n > (w if r else 0)),
    "strict-when-running": ("exactly `watermark` blocks left free is enough: at least, not more "
                            "than", lambda n, f, w, r: f - n > w if r else f >= n),
    "strict-fit": ("a request that takes the very last block fits",
                   lambda n, f, w, r: f - n >= w if r else f > n),
    "always-when-idle": ("when nothing runs you admit whatever is asked, even more blocks than "
                         "there are", lambda n, f, w, r: not r or f - n >= w),
    "before-not-after": ("the watermark is compared with what is free before the request takes its "
                         "blocks; it must hold after",
                         lambda n, f, w, r: f >= n and (not r or f >= w)),
    "waived-backwards": ("the watermark is waived while requests run and demanded when none does: "
                         "it is for those that run", lambda n, f, w, r: f - n >= (0 if r else w)),
    "waived-for-one": ("the watermark is waived while one request runs; that one grows too",
                       lambda n, f, w, r: f - n >= (w if r > 1 else 0)),
    "per-request": ("the watermark is multiplied by the number of requests; it is a number of "
                    "blocks for all of them together", lambda n, f, w, r: f - n >= w * r),
    "never-when-running": ("nobody starts while something runs; that is static batching",
                           lambda n, f, w, r: not r and f >= n),
    "always": ("everybody is admitted, whether the blocks are there or not",
               lambda n, f, w, r: True),
}


def may_admit(c: Check) -> None:
    """Every side of every limit: needs around what is free, with and without running requests."""
    cases: list[tuple[int, int, int, int]] = []
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for running in (0, 1, 2, draw.randint(3, 40)):
            free, mark = draw.randint(8, 400), draw.randint(2, 7)
            for need in {0, 1, free - mark - 1, free - mark, free - mark + 1, free - 1, free,
                         free + 1, free + mark, 3 * free}:
                cases.append((need, free, mark, running))
            cases.append((1, mark + 1, mark, running))
            cases += [(1, mark, mark, running), (1, mark - 1, mark, running)]
            cases.append((2, 3, 0, running))
    answers = []
    for case in cases:
        got = c.call(*case)
        if not isinstance(got, bool):
            raise Mistake(f"Answer True or False; you gave {got!r}.",
                          key="returns-none" if got is None else "wrong-type")
        answers.append(got)

    def right(need: int, free: int, watermark: int, running: int) -> bool:
        kept = watermark if running > 0 else 0
        return need + kept <= free

    def words(got: bool, want: bool, need: int, free: int, watermark: int, running: int) -> str:
        return (f"need {need}, free {free}, watermark {watermark}, {running} running: you say "
                f"{got}; it should be {want}.")

    judge(cases, answers, right, ADMISSIONS, words, equal)
