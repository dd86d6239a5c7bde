"""Generation loops: the naive one that recomputes everything, and the cached one.

Chapter 1 explains both; `recompute_loop` is the last exercise of Lab 1, `cached_loop` one of
Lab 7, where the reader also writes the contiguous KV cache that it uses.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from infero import grammar
from infero import logits as logits_module
from infero import model as model_module
from infero.cache import contiguous
from infero.errors import ParameterError, PromptError
from infero.model import Model, ModelConfig
from infero.outputs import Logprob
from infero.sampling import SamplingParams


def recompute_loop(
    next_logits: Callable[[list[int]], Tensor],
    pick: Callable[[Tensor, int], int],
    prompt: list[int],
    max_new_tokens: int,
    stop_tokens: frozenset[int],
) -> Iterator[int]:
    """Yield new tokens one by one, running the model over the whole sequence for each.

    next_logits(tokens) returns the logits [vocab] of the token that follows `tokens`.
    pick(logits, position) chooses that token; position is its index in the sequence, so the first
    new token has position len(prompt). At most `max_new_tokens` are yielded; a stop token ends
    the loop and is not yielded. `prompt` is left unchanged.
    """
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)


def cached_loop(
    step: Callable[[list[int], int], Tensor],
    pick: Callable[[Tensor, int], int],
    prompt: list[int],
    max_new_tokens: int,
    stop_tokens: frozenset[int],
) -> Iterator[int]:
    """Yield the same tokens as `recompute_loop`, running the model over new tokens only.

    step(tokens, start) runs `tokens`, the first of which stands at position `start`, over the
    cache, and returns the logits [vocab] of the token that follows them: first the whole prompt
    (prefill), then each newest token alone (decode). pick(logits, position), `max_new_tokens` and
    `stop_tokens` are as in `recompute_loop`. The model is not run for a token nobody asked for.
    """
    tokens, start = list(prompt), 0
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), start + len(tokens))
        if token in stop_tokens:
            return
        yield token
        start += len(tokens)
        tokens = [token]


class Picker:
    """Chooses one request's next token: penalties, bias, minimum length, then the draw.

    `last_logits` [vocab] are the raw logits of the last pick, for log-probabilities.
    """

    def __init__(self, model: Model, params: SamplingParams, prompt: list[int],
                 stop_tokens: frozenset[int]) -> None:
        config = model.config
        matcher = grammar.matcher(params, model.tokenizer, config.vocab_size, config.eos_token_ids)
        self.state = logits_module.row_state(params, prompt, config.vocab_size, stop_tokens,
                                             model.device, matcher)
        self.last_logits = torch.empty(0)

    def __call__(self, logits: Tensor, position: int) -> int:
        """logits: [vocab]; position: index of the new token in its sequence."""
        self.last_logits = logits.float()
        return logits_module.choose(self.last_logits[None], [self.state], [position])[0]

    def logprob(self, token: int) -> Logprob | None:
        """Log-probabilities of the last pick, if the request asked for them."""
        return logits_module.logprobs(self.last_logits[None], [self.state], [token])[0]


def as_ids(prompt: Sequence[Any]) -> list[int]:
    """The prompt as plain integers: numpy's and torch's are taken, anything else is named."""
    ids = []
    for token in prompt:
        try:
            ids.append(operator.index(token))
        except TypeError:
            raise PromptError(f"A prompt of token ids holds {token!r}, which is no integer; give "
                              "whole numbers, or the text itself.") from None
    return ids


def check_params(config: ModelConfig, params: SamplingParams) -> None:
    """Raise ParameterError where a token id among the parameters is outside the vocabulary."""
    for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        for token in ids:
            if not 0 <= token < config.vocab_size:
                raise ParameterError(f"{name} names token {token}, which is outside the "
                                     f"vocabulary of {config.vocab_size} entries; leave it away.")


def check_prompt(config: ModelConfig, prompt: list[int], max_new_tokens: int = 0) -> None:
    """Raise PromptError unless the prompt fits the model's vocabulary and context."""
    if not prompt:
        raise PromptError("The prompt is empty: give at least one token (for example the BOS id).")
    worst = max(prompt) if min(prompt) >= 0 else min(prompt)
    if not 0 <= worst < config.vocab_size:
        raise PromptError(
            f"Token id {worst} is outside the vocabulary of {config.vocab_size} entries; "
            "encode the prompt with this model's own tokenizer."
        )
    if len(prompt) + max_new_tokens > config.max_context:
        raise PromptError(
            f"The prompt has {len(prompt)} tokens and {max_new_tokens} are to be generated, but "
            f"the model's context is {config.max_context}; shorten the prompt or lower max_tokens."
        )


def stop_tokens_of(model: Model, params: SamplingParams) -> frozenset[int]:
    """The ids that end a request: the model's end-of-sequence ids and the request's own."""
    eos = () if params.ignore_eos else model.config.eos_token_ids
    return frozenset((*eos, *params.stop_token_ids))


def stream(model: Model, prompt: list[int], params: SamplingParams, *, use_cache: bool = True,
           picker: Picker | None = None) -> Iterator[int]:
    """Yield the tokens of one request as they are made, with the cache or by recomputing.

    Raises PromptError where prompt and max_tokens do not fit the model's context. The stop
    token, if one ends the request, is not yielded.
    """
    check_prompt(model.config, prompt, params.max_tokens)
    check_params(model.config, params)
    stops = stop_tokens_of(model, params)
    if picker is None:
        picker = Picker(model, params, prompt, stops)
    loop = cached if use_cache else recompute
    return loop(model, prompt, picker, params.max_tokens, stops)


def recompute(model: Model, prompt: list[int], pick: Callable[[Tensor, int], int],
              max_new_tokens: int, stop_tokens: frozenset[int]) -> Iterator[int]:
    """The naive loop on a real model: every step prefills a fresh cache and throws it away."""

    def next_logits(tokens: list[int]) -> Tensor:
        cache = contiguous.allocate(model.config, 1, len(tokens), model.dtype, model.device)
        return step(model, cache, tokens, 0)

    return recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens)


def cached(model: Model, prompt: list[int], pick: Callable[[Tensor, int], int],
           max_new_tokens: int, stop_tokens: frozenset[int]) -> Iterator[int]:
    """The cached loop on a real model, over a contiguous cache of just the right size."""
    cache = contiguous.allocate(
        model.config, 1, len(prompt) + max_new_tokens, model.dtype, model.device
    )

    def run(tokens: list[int], start: int) -> Tensor:
        return step(model, cache, tokens, start)

    return cached_loop(run, pick, prompt, max_new_tokens, stop_tokens)


def step(model: Model, cache: contiguous.KVCache, tokens: list[int], start: int) -> Tensor:
    """Run one request's new tokens, the first at position `start`: logits [vocab] of the last."""
    batch = contiguous.next_batch(cache, [start], [len(tokens)])
    ids = torch.tensor(tokens, device=model.device)
    last = torch.tensor([len(tokens) - 1], device=model.device)
    return model_module.forward(model, ids, batch, cache, last)[0]
