"""What Lab 11 demands of its five pieces, and the mistakes it knows by name.

Each check asks the candidate many questions and then compares all of its answers at once: with the
right ones, and with those that each known mistake would have given. Nothing runs a model or an
engine. Chapter 11 explains the pieces.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab03_tools import number
from infero.request import Request

Wrongs = Mapping[str, tuple[str, Callable[..., Any]]]


def judge(cases: Sequence[tuple[Any, ...]], answers: Sequence[Any], right: Callable[..., Any],
          wrongs: Wrongs, words: Callable[..., str], same: Callable[[Any, Any], bool]) -> None:
    """A Mistake unless all answers are right; named if they are exactly those of a known mistake.

    words(answer, wanted, *case) describes the first case that is wrong.
    """
    wanted = [right(*case) for case in cases]
    bad = [i for i, w in enumerate(wanted) if not same(answers[i], w)]
    if not bad:
        return
    first = words(answers[bad[0]], wanted[bad[0]], *cases[bad[0]])
    for key, (says, wrong) in wrongs.items():
        if all(same(a, wrong(*case)) for a, case in zip(answers, cases, strict=True)):
            raise Mistake(says[:1].upper() + says[1:].rstrip(".") + ".", key=key, details=[first])
    raise Mistake(first, key="wrong")


def equal(a: Any, b: Any) -> bool:
    return bool(a == b)


def close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(b))


# ---------------------------------------------------------------- 1, 2: the keys of the queue


def some_request(draw: random.Random, kind: str) -> Request:
    """A request at some point of its life."""
    prompt, generated = draw.randint(3, 900), 0
    request = Request(f"r{draw.randint(0, 999)}", [1] * prompt, prompt, draw.randint(20, 400),
                      draw.uniform(0.5, 90), draw.choice([-2, 0, 1, 3, 7]))
    if kind in ("estimated", "preempted", "late"):
        request.expected_tokens = draw.randint(5, 200)
    if kind == "late":  # it has outlived its estimate
        request.expected_tokens = draw.randint(2, 15)
        generated = draw.randint(16, 19)
    if kind == "preempted":  # its output so far must be computed again
        generated = draw.randint(1, 4)
    if kind == "cached":
        request.computed = draw.randint(1, prompt - 1)
    request.tokens += [2] * generated
    return request


def of(request: Request) -> str:
    """A request in words."""
    generated = len(request.tokens) - request.prompt_len
    guess = ("no estimate" if request.expected_tokens is None
             else f"expected_tokens {request.expected_tokens}")
    return (f"a request with a prompt of {request.prompt_len}, {generated} tokens generated, "
            f"{request.computed} computed, {guess}, max_new_tokens {request.max_new_tokens}, "
            f"priority {request.priority}, arrival_s {request.arrival_s:.3f}")


def ask_keys(c: Check, kinds: Sequence[str], ageings: Sequence[float]
             ) -> tuple[list[tuple[Request, float]], list[float]]:
    cases, answers = [], []
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for kind in kinds:
            for ageing in ageings:
                request = some_request(draw, kind)
                rate = ageing * draw.uniform(0.5, 2)
                kept = dict(vars(request), tokens=list(request.tokens))
                answers.append(number(c, c.call(request, rate), "the key"))
                c.expect(kept == vars(request), "mutates-input",
                         "Your function changes the request; a key is only read from it.")
                cases.append((request, rate))
    return cases, answers


def _say_key(got: float, want: float, request: Request, ageing: float) -> str:
    return (f"For {of(request)} and ageing {ageing:.3f} your key is {got:.3f}; "
            f"it should be {want:.3f}.")


def _left(request: Request, *, least: float = 1, guess: str = "own", generated: int | None = None
          ) -> float:
    """Output still expected of a request."""
    expected = request.expected_tokens
    if guess == "most" or expected is None:
        expected = request.max_new_tokens if guess != "none" else 0
    done = len(request.tokens) - request.prompt_len if generated is None else generated
    return max(expected - done, least)


def _todo(request: Request) -> int:
    """Known tokens that are not computed."""
    return len(request.tokens) - request.computed


def shortest_first(c: Check) -> None:
    """New, estimated, preempted, partly cached and late requests, with and without ageing."""
    kinds = ("new", "estimated", "preempted", "cached", "late")
    cases, answers = ask_keys(c, kinds, (0.0, 3.0, 50.0))

    def right(r: Request, ageing: float) -> float:
        return _todo(r) + _left(r) + ageing * r.arrival_s

    known: dict[str, tuple[str, Callable[[Request, float], float]]] = {
        "no-ageing": ("the time of arrival does not enter: without ageing a long job may wait for "
                      "ever", lambda r, a: _todo(r) + _left(r)),
        "ageing-backwards": ("the ageing has the wrong sign: who came later gets the smaller key "
                             "and overtakes everybody", lambda r, a: _todo(r) + _left(r)
                             - a * r.arrival_s),
        "arrival-unscaled": ("the time of arrival is added in seconds to a number of tokens; "
                             "multiply it by ageing, in tokens a second",
                             lambda r, a: _todo(r) + _left(r) + r.arrival_s),
        "longest-first": ("the key grows with what is done, so the longest job would go first",
                          lambda r, a: -(_todo(r) + _left(r)) + a * r.arrival_s),
        "prompt-only": ("only the tokens to compute now are counted; the output still expected is "
                        "work too", lambda r, a: _todo(r) + a * r.arrival_s),
        "output-only": ("only the output is counted; the tokens not yet computed are work too",
                        lambda r, a: _left(r) + a * r.arrival_s),
        "computed-ignored": ("what is computed already is counted as work",
                             lambda r, a: len(r.tokens) + _left(r) + a * r.arrival_s),
        "generated-ignored": ("what was generated already is still counted as expected output",
                              lambda r, a: _todo(r) + _left(r, generated=0) + a * r.arrival_s),
        "prompt-for-tokens": ("after a preemption the generated tokens must be computed again too: "
                              "count all known tokens, not the prompt's",
                              lambda r, a: r.prompt_len - r.computed + _left(r) + a * r.arrival_s),
        "estimate-ignored": ("the estimate expected_tokens is not used",
                             lambda r, a: _todo(r) + _left(r, guess="most") + a * r.arrival_s),
        "no-default": ("where there is no estimate, max_new_tokens takes its place",
                       lambda r, a: _todo(r) + _left(r, guess="none") + a * r.arrival_s),
        "below-one": ("a request that has outlived its estimate still expects at least one token; "
                      "yours expects a negative number",
                      lambda r, a: _todo(r) + _left(r, least=-1e9) + a * r.arrival_s),
        "zero-left": ("a request that has outlived its estimate still expects at least 1 token; "
                      "yours expects 0", lambda r, a: _todo(r) + _left(r, least=0)
                      + a * r.arrival_s),
        "arrival-only": ("this is first come, first served",
                         lambda r, a: a * r.arrival_s),
    }
    judge(cases, answers, right, known, _say_key, close)


def priority_first(c: Check) -> None:
    """Priorities of both signs, early and late arrivals, with and without ageing."""
    cases, answers = ask_keys(c, ("new", "estimated", "preempted", "cached"), (0.0, 0.1, 2.0))
    known: dict[str, tuple[str, Callable[[Request, float], float]]] = {
        "no-ageing": ("the time of arrival does not enter: requests of low priority may wait for "
                      "ever", lambda r, a: r.priority),
        "ageing-backwards": ("the ageing has the wrong sign: a key must be smaller for who came "
                             "earlier", lambda r, a: r.priority - a * r.arrival_s),
        "priority-backwards": ("a smaller number is more urgent, and the smallest key goes first: "
                               "do not negate the priority",
                               lambda r, a: -r.priority + a * r.arrival_s),
        "both-backwards": ("the smallest key goes first: this one is negated",
                           lambda r, a: -r.priority - a * r.arrival_s),
        "arrival-unscaled": ("the time of arrival is not multiplied by ageing, in levels a second",
                             lambda r, a: r.priority + r.arrival_s),
        "scales-both": ("ageing multiplies the time of arrival only, not the priority",
                        lambda r, a: a * (r.priority + r.arrival_s)),
        "arrival-only": ("the priority does not enter", lambda r, a: a * r.arrival_s),
        "product": ("priority and age are multiplied; add them", lambda r, a: r.priority * a
                    * r.arrival_s),
    }
    judge(cases, answers, lambda r, a: r.priority + a * r.arrival_s, known, _say_key, close)


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
