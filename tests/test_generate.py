"""The two loops make the same tokens, and requests end where they should."""

from __future__ import annotations

import pytest
import torch

from infero import generate as g
from infero.errors import PromptError
from infero.model import Model, random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config

PROMPT = [3, 14, 15, 92, 65]


@pytest.mark.parametrize("params", [
    {"temperature": 0.0}, {"temperature": 0.9, "seed": 5}, {"temperature": 1.3, "seed": 6,
     "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2,
     "presence_penalty": 0.3, "frequency_penalty": 0.2, "logit_bias": {7: -5.0}},
])
def test_cached_and_recomputed_tokens_are_equal(tiny_model: Model, params: dict) -> None:
    p = SamplingParams(max_tokens=40, **params)
    cached = list(g.stream(tiny_model, PROMPT, p))
    assert cached == list(g.stream(tiny_model, PROMPT, p, use_cache=False))
    assert len(cached) == 40


def test_a_seed_repeats_and_no_seed_does_not(tiny_model: Model) -> None:
    seeded, free = SamplingParams(seed=1, max_tokens=12), SamplingParams(max_tokens=12)
    assert list(g.stream(tiny_model, PROMPT, seeded)) == list(g.stream(tiny_model, PROMPT, seeded))
    assert list(g.stream(tiny_model, PROMPT, free)) != list(g.stream(tiny_model, PROMPT, free))


def test_stop_tokens_end_the_request_unyielded() -> None:
    free = random_model(tiny_config(), seed=1)
    greedy = SamplingParams(temperature=0, max_tokens=20)
    tokens = list(g.stream(free, PROMPT, greedy))
    stop = tokens[6]
    model = random_model(tiny_config(eos_token_ids=(stop,)), seed=1)
    first = tokens.index(stop)
    for use_cache in (True, False):
        assert list(g.stream(model, PROMPT, greedy, use_cache=use_cache)) == tokens[:first]
    ignoring = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    assert list(g.stream(model, PROMPT, ignoring)) == tokens
    at_least = SamplingParams(temperature=0, max_tokens=20, min_tokens=15)
    longer = list(g.stream(model, PROMPT, at_least))
    assert len(longer) >= 15 and stop not in longer[:15]


def test_logit_bias_can_forbid_and_force(tiny_model: Model) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=5)
    favourite = next(g.stream(tiny_model, PROMPT, greedy))
    forbid = SamplingParams(temperature=0, max_tokens=5, logit_bias={favourite: -100.0})
    force = SamplingParams(temperature=0, max_tokens=5, logit_bias={42: 100.0})
    assert favourite not in g.stream(tiny_model, PROMPT, forbid)
    assert list(g.stream(tiny_model, PROMPT, force)) == [42] * 5


def test_the_context_is_a_limit(tiny_model: Model) -> None:
    with pytest.raises(PromptError, match="context is 128"):
        g.stream(tiny_model, [1] * 100, SamplingParams(max_tokens=29))
    exact = SamplingParams(temperature=0, max_tokens=28)
    assert len(list(g.stream(tiny_model, [1] * 100, exact))) == 28


def test_recompute_loop_calls_the_model_no_more_than_needed() -> None:
    seen: list[list[int]] = []

    def next_logits(tokens: list[int]) -> torch.Tensor:
        seen.append(list(tokens))
        return torch.zeros(8)

    positions: list[int] = []

    def pick(logits: torch.Tensor, position: int) -> int:
        positions.append(position)
        return position % 8

    prompt = [1, 2]
    assert list(g.recompute_loop(next_logits, pick, prompt, 3, frozenset())) == [2, 3, 4]
    assert seen == [[1, 2], [1, 2, 2], [1, 2, 2, 3]] and positions == [2, 3, 4]
    assert prompt == [1, 2]
    assert list(g.recompute_loop(next_logits, pick, prompt, 9, frozenset({4}))) == [2, 3]


@pytest.mark.parametrize("prompt,words", [
    ([], "prompt is empty"), ([3, 211], "Token id 211"), ([-1], "Token id -1"),
    ([1] * 129, "129 tokens"),
])
def test_bad_prompts_are_named(prompt: list[int], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        g.check_prompt(tiny_config(), prompt)
