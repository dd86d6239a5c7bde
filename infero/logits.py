"""Choosing the next token of several requests at once, each by its own parameters.

Chapter 10 explains it. A row of logits passes, in this order, its request's penalties, bias,
minimum length and grammar, and then the draw of `sampling.py`. Every step works on the rows that
need it; a batch of plain greedy requests is one argmax.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infero import kernels, sampling
from infero.outputs import Logprob
from infero.sampling import SamplingParams, SamplingRows

if TYPE_CHECKING:
    from infero.grammar import Matcher

ROWS = 64  # rows drawn at once: the random numbers of a row take some hundred bytes a token
DRAW = ("temperature", "top_k", "top_p", "min_p", "philox", "uniform", "gumbel", "process",
        "sample")


@dataclass
class RowState:
    """What the draws of one request depend on, besides its logits and the position."""

    params: SamplingParams
    seed: int
    prompt_len: int
    stop_tokens: Tensor  # [stops] int64
    counts: Tensor | None = None  # [vocab], how often each token was generated, if penalised
    prompt_mask: Tensor | None = None  # [vocab] bool
    matcher: Matcher | None = None
    output: list[int] = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Whether the device can draw its tokens alone: nothing depends on what the host knows."""
        p = self.params
        return (self.counts is None and self.matcher is None and not p.logit_bias
                and p.logprobs is None and (p.min_tokens == 0 or not len(self.stop_tokens)))


def row_state(params: SamplingParams, prompt: Sequence[int], vocab: int,
              stop_tokens: frozenset[int], device: torch.device,
              matcher: Matcher | None = None) -> RowState:
    """The state of a new request; without a seed of its own it gets a fresh one."""
    seed = secrets.randbits(62) if params.seed is None else params.seed
    stops = torch.tensor(sorted(stop_tokens), dtype=torch.int64, device=device)
    state = RowState(params, seed, len(prompt), stops, matcher=matcher)
    if (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1, 0, 0):
        state.counts = torch.zeros(vocab, device=device)
        state.prompt_mask = torch.zeros(vocab, dtype=torch.bool, device=device)
        state.prompt_mask[torch.tensor(prompt, device=device)] = True
    return state


def adjust(logits: Tensor, states: Sequence[RowState], positions: Sequence[int]) -> Tensor:
    """Penalties, bias, minimum length and grammar: [rows, vocab] float32 in, the same out."""
    penalised = [i for i, s in enumerate(states) if s.counts is not None]
    if penalised:
        chosen = torch.tensor(penalised, device=logits.device)
        rows = [states[i] for i in penalised]
        strengths = (
            torch.tensor([getattr(s.params, f"{name}_penalty") for s in rows], device=logits.device)
            for name in ("repetition", "presence", "frequency")
        )
        counts = torch.stack([s.counts for s in rows if s.counts is not None])
        seen = torch.stack([s.prompt_mask for s in rows if s.prompt_mask is not None])
        changed = sampling.penalties(logits[chosen], counts, seen, *strengths)
        logits = logits.index_copy(0, chosen, changed)
    for i, (state, position) in enumerate(zip(states, positions, strict=True)):
        if state.params.logit_bias:
            ids = torch.tensor(list(state.params.logit_bias), device=logits.device)
            bias = torch.tensor(list(state.params.logit_bias.values()), device=logits.device)
            logits = logits.index_put((torch.full_like(ids, i), ids), bias, accumulate=True)
        complete = state.matcher is not None and state.matcher.finished  # it can only end
        short = position - state.prompt_len < state.params.min_tokens
        if len(state.stop_tokens) and short and not complete:
            ids = state.stop_tokens
            logits = logits.index_put((torch.full_like(ids, i), ids), logits.new_tensor(-torch.inf))
    masked = [i for i, s in enumerate(states) if s.matcher is not None]
    if masked:
        chosen = torch.tensor(masked, device=logits.device)
        bits = torch.stack([s.matcher.bitmask() for i in masked if (s := states[i]).matcher])
        allowed = sampling.token_mask(logits[chosen], bits.to(logits.device))
        logits = logits.index_copy(0, chosen, allowed)
    return logits


def choose(logits: Tensor, states: Sequence[RowState], positions: Sequence[int]) -> list[int]:
    """Draw one token a row and remember it in the row's state.

    logits: [rows, vocab] float32; positions: the index of each new token in its sequence.
    """
    logits = adjust(logits, states, positions)
    if all(s.params.temperature == 0 for s in states):
        tokens = logits.argmax(dim=-1).tolist()
    else:
        tokens = []
        for low in range(0, len(states), ROWS):
            part = slice(low, low + ROWS)
            rows = sampling.rows_of([s.params for s in states[part]],
                                    [s.seed for s in states[part]], positions[part], logits.device)
            tokens += draw(logits[part], rows).tolist()
    for state, token in zip(states, tokens, strict=True):
        if state.counts is not None:
            state.counts[token] += 1
        if state.matcher is not None:
            state.output.append(token)
            state.matcher.follow(state.output)
    return tokens


def learners() -> list[str]:
    """Functions of the draw that are not the engine's own: they are called, and no kernel is."""
    own = vars(sampling)
    return [name for name in DRAW if getattr(own[name], "__globals__", None) is not own]


def draw(logits: Tensor, rows: SamplingRows, variant: str | None = None,
         out: Tensor | None = None) -> Tensor:
    """One token a row, by the device's kernel where it has one: [rows] int64.

    logits: [rows, vocab]; variant: "greedy", "plain" (temperature alone) or "filtered", if known:
    it saves work, and the host from looking. out: where the tokens go.
    """
    if kernels.triton(logits.device) and not learners():
        from infero.kernels import sampler

        return sampler.sample(logits, rows, variant or "filtered", out=out)
    wide = replace(rows, top_k=rows.top_k.long(), position=rows.position.long())
    tokens = sampling.sample(logits.float(), wide)
    return tokens if out is None else out.copy_(tokens)


def logprobs(logits: Tensor, states: Sequence[RowState], tokens: Sequence[int]
             ) -> list[Logprob | None]:
    """Log-probabilities of the drawn tokens for the rows that asked, from the raw logits."""
    wanted = [s.params.logprobs for s in states]
    rows = [i for i, n in enumerate(wanted) if n is not None]
    found: list[Logprob | None] = [None] * len(states)
    if not rows:
        return found
    most = max(n for n in wanted if n is not None)
    chosen = torch.tensor([tokens[i] for i in rows], device=logits.device)
    at = torch.tensor(rows, device=logits.device)
    logp, ids, values = (t.tolist() for t in sampling.log_probabilities(logits[at], chosen, most))
    for j, i in enumerate(rows):
        top = dict(zip(ids[j], values[j], strict=True))
        found[i] = Logprob(tokens[i], logp[j], dict(list(top.items())[: wanted[i]]))
    return found
