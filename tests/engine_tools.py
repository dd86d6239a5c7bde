"""What the engine's tests share: requests, their tokens when each is alone, and how to compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from infero import generate, sampling
from infero.engine import Engine
from infero.logits import RowState
from infero.model import Model
from infero.outputs import Chunk
from infero.request import Plan
from infero.runner import Flight
from infero.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12)
TIE = 1e-4  # tokens whose logits are closer than this may change places in float32


@dataclass
class Alone:
    """One request's tokens by the loop of chapter 7, and how clear each choice was."""

    tokens: list[int]
    gaps: list[float]  # best minus second best, noise included
    logits: list[Tensor] = field(default_factory=list)  # [vocab] each, raw


def alone(model: Model, prompt: Sequence[int], params: SamplingParams = GREEDY, *,
          use_cache: bool = True) -> Alone:
    """The oracle: the request by itself over a contiguous cache, or by recomputing everything."""
    room = model.config.max_context - len(prompt)
    params = replace(params, max_tokens=min(params.max_tokens, room))
    stops = generate.stop_tokens_of(model, params)
    picker = generate.Picker(model, params, list(prompt), stops)
    found = Alone([], [])

    class Watched:
        def __call__(self, logits: Tensor, position: int) -> int:
            token = picker(logits, position)
            score = picker.last_logits
            found.logits.append(score.cpu())
            if params.temperature:
                rows = sampling.rows_of([params], [picker.state.seed], [position], score.device)
                noise = sampling.gumbel(rows.seed, rows.position, sampling.SAMPLE, len(score))
                score = (sampling.process(score[None], rows) + noise)[0]
            best = score.topk(2).values
            found.gaps.append(float(best[0] - best[1]))
            return token

    loop = generate.cached if use_cache else generate.recompute
    found.tokens = list(loop(model, list(prompt), Watched(), params.max_tokens, stops))
    return found


def check_same(got: Sequence[int], want: Alone, name: str = "") -> None:
    """Equal tokens, except from a place on where the oracle's own choice was a tie."""
    for at, (a, b) in enumerate(zip(got, want.tokens, strict=False)):
        if a != b:
            assert want.gaps[at] < TIE, (
                f"{name}: token {at} is {a}, alone it is {b}, and that was clear by "
                f"{want.gaps[at]:.2g}")
            return
    if len(got) != len(want.tokens):  # one ended earlier: the other's end was a tie
        at = min(len(got), len(want.tokens))
        assert at < len(want.gaps) and want.gaps[at] < TIE, (
            f"{name}: {len(got)} tokens, alone {len(want.tokens)}")


@dataclass
class Run:
    """What a run of the engine brought: by request and completion."""

    tokens: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    reasons: dict[tuple[str, int], str] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    steps: int = 0


def drive(engine: Engine, limit: int = 20_000, before: Callable[[int], Any] | None = None) -> Run:
    """Step until nothing is left, checking the books after each step; before(i) may interfere."""
    run = Run()
    while engine.has_unfinished():
        if before is not None:
            before(run.steps)
        for chunk in engine.step():
            run.chunks.append(chunk)
            key = (chunk.id, chunk.index)
            assert key not in run.reasons, f"{key} goes on after its end"
            if chunk.token is not None:
                run.tokens.setdefault(key, []).append(chunk.token)
            if chunk.finish_reason is not None:
                run.reasons[key] = chunk.finish_reason
                run.tokens.setdefault(key, [])
        engine.check_integrity()
        run.steps += 1
        assert run.steps < limit, f"not done after {limit} steps"
    check_empty(engine)
    return run


def check_empty(engine: Engine) -> None:
    """Nothing runs, nothing waits, every block is free."""
    engine.check_integrity()
    scheduler = engine.scheduler
    assert not engine.has_unfinished() and not scheduler.requests and not scheduler.running
    assert len(scheduler.pool.free) == engine.num_blocks, "blocks leaked"


def captured(engine: Engine) -> dict[tuple[str, int], Tensor]:
    """From now on, the raw logits [vocab] of every draw, by request id and position."""
    found: dict[tuple[str, int], Tensor] = {}
    execute = engine.runner.execute

    def wrapped(plan: Plan, states: Sequence[RowState], *, choose: bool) -> Flight:
        flight = execute(plan, states, choose=True)
        for entry, row in zip(flight.sampling, flight.logits, strict=True):
            found[entry.request.id, entry.start + entry.n] = row.float().cpu()
        return flight

    engine.runner.execute = wrapped  # type: ignore[method-assign]
    return found


def kl(p: Tensor, q: Tensor) -> float:
    """Kullback-Leibler divergence of two rows of logits, in nats."""
    a, b = p.double().log_softmax(-1), q.double().log_softmax(-1)
    return float((a.exp() * (a - b)).sum())


def prompts(count: int, vocab: int = 200, longest: int = 50, seed: int = 0) -> list[list[int]]:
    """Prompts of all lengths: some share beginnings, some are equal, some have one token."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> list[int]:
        return torch.randint(0, vocab, (n,), generator=generator).tolist()

    stem, made = draw(longest), list[list[int]]()
    for i in range(count):
        length = 1 + int(torch.randint(0, longest, (1,), generator=generator))
        kind = i % 5
        if kind == 0:
            made.append(draw(length))
        elif kind == 1:
            made.append(stem[:length])
        elif kind == 2:
            made.append((stem[: length // 2 + 1] + draw(length // 2))[:longest])
        elif kind == 3:
            made.append(list(made[int(torch.randint(0, i, (1,), generator=generator))]))
        else:
            made.append(draw(1 + length % 4))
    return made
