"""The checks of Lab 11's two keys of the waiting queue."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from infero.lab.checking import Check
from infero.lab.checks.lab03_tools import number
from infero.lab.checks.lab11_tools import close, judge
from infero.request import Request

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
