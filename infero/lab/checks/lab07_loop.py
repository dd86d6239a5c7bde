"""What Lab 7 demands of `cached_loop`, and the mistakes it knows by name.

The model is a script that notes which tokens it was given and where they stand; it also answers
with the wrong logits' argmax, so a loop that picks for itself shows. Chapter 7 explains the piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from infero.lab.checking import Check, Mistake

LARGEST = 99  # what an argmax would take; pick never does


@dataclass
class Run:
    """One run of the candidate: what it yielded, what it asked the model and pick."""

    yielded: list[int] = field(default_factory=list)
    calls: list[tuple[list[int], int]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


def drive(c: Check, prompt: list[int], script: list[int], limit: int, stops: frozenset[int],
          seed: int) -> Run:
    """Run the candidate on a scripted model and a pick that reads from `script`."""
    run, handed, g = Run(), [], c.generator(seed)

    def step(tokens: list[int], start: int) -> Tensor:
        c.expect(isinstance(tokens, list), "not-a-list",
                 "`step` takes a list of token ids, also for a single one: [token]. You gave it "
                 f"something of type {type(tokens).__name__}.")
        c.expect(isinstance(start, int), "start-not-a-number",
                 f"`start` is a position, a whole number; you gave {start!r}.")
        run.calls.append((list(tokens), start))
        c.expect(len(run.calls) <= limit + len(prompt) + 3, "endless",
                 f"The model was run {len(run.calls)} times for {limit} new tokens, and no end.")
        handed.append(torch.randn(100, generator=g))
        handed[-1][LARGEST] = 50.0
        return handed[-1]

    def pick(logits: Tensor, position: int) -> int:
        c.expect(bool(handed) and logits is handed[-1], "other-logits",
                 "`pick` must get the logits that step has just returned, unchanged.")
        run.positions.append(position)
        return script[(len(run.positions) - 1) % len(script)]

    before = list(prompt)
    steps = c.call(step, pick, prompt, limit, stops)
    c.expect(steps is not None, "returns-none",
             "The result is None: hand each token out with yield.")
    c.expect(hasattr(steps, "__next__"), "not-an-iterator",
             f"The result is a {type(steps).__name__}; hand each token out with yield as soon as "
             "it is known, so that a reader sees text appear.")
    for token in steps:
        run.yielded.append(token)
        new = len(run.yielded)
        alone = new == 1 < len(prompt) and run.calls == [([t], i) for i, t in enumerate(prompt)]
        c.expect(not alone, "prompt-one-by-one",
                 "The prompt goes through the model token by token; run it in one step (prefill), "
                 "which reads the weights once for all of it.")
        c.expect(new > 1 or len(run.calls) <= 1, "not-lazy",
                 f"The model had run {len(run.calls)} times before the first token was handed out; "
                 "yield each token as soon as it is picked.")
        c.expect(new <= limit + len(prompt) + 3, "endless", f"{new} tokens, and still more.")
    c.expect(prompt == before, "mutates-input",
             "The caller's prompt has changed: work on a copy, list(prompt).")
    return run


def judge(c: Check, prompt: list[int], script: list[int], limit: int, stops: frozenset[int],
          seed: int) -> None:
    run = drive(c, list(prompt), script, limit, stops, seed)
    end = next((i for i, t in enumerate(script[:limit]) if t in stops), None)
    want = script[:limit] if end is None else script[:end]
    told = f"prompt {prompt}, max_new_tokens {limit}, picks {script[:limit]}, stops {sorted(stops)}"
    picks = len(want) + (end is not None)
    _judge_calls(prompt, script, run, picks, told)
    _judge_tokens(prompt, script, run, want, end, stops, limit, told)
    right = [len(prompt) + i for i in range(picks)]
    if run.positions != right:
        words = (f"`pick` got positions {run.positions}, expected {right}: the index that the new "
                 f"token will have in the whole sequence ({told}).")
        key = {tuple(range(picks)): "position-of-step",
               tuple(p - 1 for p in right): "position-of-last",
               (len(prompt),) * picks: "position-constant"}.get(tuple(run.positions))
        raise Mistake(words, key or "wrong-position")


def _judge_calls(prompt: list[int], script: list[int], run: Run, picks: int, told: str) -> None:
    """What the model should see: the whole prompt from 0, then each newest token where it is."""
    wanted = [(prompt, 0)] + [([script[i]], len(prompt) + i) for i in range(picks - 1)]
    wanted, calls = wanted[:picks], run.calls
    if calls == wanted[: len(calls)]:  # too few are for the tokens to tell
        return
    if run.yielded and set(run.yielded) == {LARGEST}:
        raise Mistake(f"You take the largest logit; let `pick` choose the token ({told}).",
                      "ignores-pick")
    tokens, starts = [t for t, _ in calls], [s for _, s in calls]
    second, right = (starts[1] if len(starts) > 1 else 0), len(prompt)
    want_tokens, want_starts = [t for t, _ in wanted], [s for _, s in wanted]
    same = tokens == want_tokens
    whole = [prompt + script[:i] for i in range(len(calls))]
    first = calls[0][0] if calls else prompt
    for holds, key, words in [
        (len(calls) > picks and calls[:picks] == wanted, "extra-call",
         f"the model ran {len(calls)} times for {picks} picks: the last run is thrown away, and "
         "each one costs as much as a token"),
        (len(calls) > 1 and tokens == whole, "recomputes",
         "the model sees the whole sequence again at every step; the cache holds the past, so only "
         "the newest token is run"),
        (len(prompt) > 1 and first == prompt[-1:], "prompt-not-prefilled",
         "only the last token of the prompt is run: the cache knows nothing of the others"),
        (len(calls) > 1 and all(t == prompt for t in tokens), "prompt-again",
         "every step runs the prompt; after the first, run the newest token"),
        (len(calls) > 1 and tokens[1] == prompt[-1:] != [script[0]], "last-prompt-token-again",
         "the second step runs the prompt's last token again; its successor is the new token"),
        (same and len(calls) > 1 and starts[1:] == [s - 1 for s in want_starts[1:]],
         "start-one-too-small", f"the first new token stands at position {right}, right after "
         f"the prompt; you gave {second}, which overwrites the one before it"),
        (same and len(calls) > 1 and starts[1:] == [s + 1 for s in want_starts[1:]],
         "start-one-too-large", f"the first new token stands at position {right}, right after "
         f"the prompt; you gave {second}, which leaves a hole in the cache"),
        (same and len(calls) > 1 and not any(starts), "start-always-zero",
         "every step starts at position 0, so each new token overwrites the first"),
        (same and len(calls) > 2 and len(set(starts[1:])) == 1, "start-does-not-advance",
         f"after the prompt every token is put at position {starts[-1]}; start must advance"),
        (same and starts == list(range(len(calls))), "start-counts-steps",
         "start counts steps; it is a position, and the prompt already takes up "
         f"{len(prompt)} of them"),
    ]:
        if holds:
            raise Mistake(f"{words[:1].upper()}{words[1:]} ({told}).", key)
    at = next((i for i, w in enumerate(wanted) if i >= len(calls) or calls[i] != w), picks)
    got = f"it got tokens {calls[at][0]} at {calls[at][1]}" if at < len(calls) else "it did not run"
    should = f"run tokens {wanted[at][0]} at position {wanted[at][1]}" if at < picks else "not run"
    raise Mistake(f"With {told}, in step {at} the model should {should}; {got}.", "wrong-steps")


def _judge_tokens(prompt: list[int], script: list[int], run: Run, want: list[int],
                  end: int | None, stops: frozenset[int], limit: int, told: str) -> None:
    yielded, n = run.yielded, len(run.yielded)
    if yielded == want:
        return
    stop = script[end] if end is not None else None
    for holds, key, words in [
        (n and yielded == [LARGEST] * n, "ignores-pick",
         "you take the largest logit; let `pick` choose the token"),
        (n >= len(prompt) and yielded[: len(prompt)] == prompt, "yields-the-prompt",
         "you yield the prompt; yield only the new tokens"),
        (stop is not None and yielded == [*want, stop], "yields-stop",
         "the stop token is yielded; it ends the loop silently"),
        (stop is not None and yielded[: len(want)] == want and stop in yielded, "ignores-stop",
         "the loop goes on after a stop token"),
        (stop is not None and yielded[: len(want)] == want and n > len(want),
         "goes-on-after-stop", "the stop token is held back but the loop goes on after it"),
        (not n and want and stops & set(prompt), "stops-on-prompt",
         "a stop token inside the prompt ends the loop; only a new token may"),
        (n == len(want) + 1, "one-too-many", f"{n} tokens where max_new_tokens allows {limit}"),
        (n and n == len(want) - 1, "one-too-few",
         f"{n} tokens where max_new_tokens is {limit} and nothing stopped the loop"),
    ]:
        if holds:
            raise Mistake(f"{words[:1].upper()}{words[1:]} ({told}; you yielded {yielded}).", key)
    raise Mistake(f"With {told}, expected {want}; you yielded {yielded}.", "wrong-tokens")


def cached_loop(c: Check) -> None:
    """A scripted model and pick: what runs, where, how often; what is yielded and when."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        prompt = torch.randint(0, 40, (4,), generator=g).tolist()
        script = torch.randint(40, 90, (9,), generator=g).tolist()
        stopped = [*script[:3], 95, *script[4:]]
        judge(c, prompt, script, 6, frozenset(), seed)
        judge(c, prompt, script, 6, frozenset({95, 96}), seed)
        judge(c, prompt, stopped, 8, frozenset({95, 96}), seed)
        judge(c, [prompt[0]], [96, *script], 5, frozenset({95, 96}), seed)  # stops at once
        judge(c, [*prompt, 95, 7], script, 5, frozenset({95}), seed)  # a stop token in the prompt
        judge(c, prompt, [*script[:4], 95], 5, frozenset({95}), seed)  # stops at the very end
        judge(c, [prompt[0]], script, 3, frozenset(), seed)
        judge(c, prompt, script, 1, frozenset({95}), seed)
        judge(c, prompt, script, 0, frozenset({95}), seed)
    # Two requests at once: nothing may be shared between them.
    loops = [c.call(lambda t, s: torch.tensor(float(10 * len(t) + s)),
                    lambda x, at: 100 * int(x) + at, [1] * n, 3, frozenset()) for n in (2, 5)]
    got = [[next(loop) for loop in loops] for _ in range(3)]
    c.expect(got == [[2002, 5005], [1203, 1506], [1304, 1607]], "shared-state",
             "Two loops that run side by side disturb each other: keep tokens and start in "
             "variables of the function.")
