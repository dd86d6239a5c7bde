"""Capture and replay on a tape, and decoding from taped steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infero import graphs, tape, taped
from infero.llm import LLM
from infero.model import random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config


def test_a_replay_uses_the_same_memory() -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        h = (x @ w).relu_()
        return h.chunk(2, dim=1)[0] + x.sum(1, keepdim=True)

    g = torch.Generator().manual_seed(0)
    kept = tape.capture(function, torch.randn(3, 4, generator=g), torch.randn(4, 6, generator=g))
    places = [t.data_ptr() for call in kept.calls for t in call.results]
    for _ in range(3):
        x, w = torch.randn(3, 4, generator=g), torch.randn(4, 6, generator=g)
        found = tape.replay(kept, x, w)
        assert found is kept.outputs
        torch.testing.assert_close(found, function(x, w))
    assert places == [t.data_ptr() for call in kept.calls for t in call.results]


def test_python_is_not_on_the_tape() -> None:
    def function(x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else -x

    kept = tape.capture(function, torch.ones(2))
    assert tape.replay(kept, -torch.ones(2)).tolist() == [-2.0, -2.0]


def test_views_launch_nothing() -> None:
    kept = tape.capture(lambda x: x.view(2, 3).t() * 2, torch.ones(6))
    assert kept.launches == 1 < len(kept.calls)
    filled = tape.capture(lambda x: x.clone().mul_(2), torch.ones(6))
    assert filled.launches == 2


def test_another_shape_is_refused() -> None:
    kept = tape.capture(lambda x: x + 1, torch.ones(3, 2))
    with pytest.raises(ValueError, match="capture one for each shape"):
        tape.replay(kept, torch.ones(1, 2))


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_taped_decoding_is_the_engine_s(name: str) -> None:
    model = random_model(tiny_config(qk_norm=name == "qwen3"), seed=2)
    prompts, lengths = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11], [3, 3]], [6, 9, 3, 1]
    outputs, decoder = taped.greedy(model, prompts, lengths, block_size=4)
    for prompt, n, mine in zip(prompts, lengths, outputs, strict=True):
        params = SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True)
        assert mine == LLM(model, block_size=4).generate(prompt, params)[0].tokens
    assert [n for n, _ in decoder.replays] == [3, 3, 2, 2, 2, 1, 1, 1]
    assert set(decoder.tapes) == {4, 2, 1}  # three requests are padded to four
    with pytest.raises(ValueError, match="capture more"):
        decoder.step(graphs_step(5), [[0]] * 5)


def graphs_step(n: int) -> object:
    from infero.runner import Ragged

    return Ragged([0] * n, [0] * n, [0] * n, [1] * n, [1] * n, list(range(n)))


def test_blank_buffers_write_nothing() -> None:
    buffers = taped.blank(graphs.buckets(4)[-1], 3)
    assert (buffers.slots == -1).all() and not buffers.contexts.any()
