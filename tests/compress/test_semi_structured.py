"""2:4 weights: compressed and expanded, and in the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from infero.compress import magnitude, pruning, semi_structured
from infero.errors import ConfigError
from infero.llm import LLM
from infero.model import ModelConfig, random_model
from infero.sampling import SamplingParams


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 5), eighths=st.integers(1, 5), seed=st.integers(0, 99),
       also=st.floats(0, 1))
def test_round_trip(rows: int, eighths: int, seed: int, also: float) -> None:
    g = torch.Generator().manual_seed(seed)
    weight = magnitude.prune(torch.randn(rows, 8 * eighths, generator=g), pattern=(2, 4))
    weight = weight * (torch.rand(weight.shape, generator=g) > also)  # groups with fewer than two
    values, positions = semi_structured.compress(weight)
    assert values.shape == (rows, 4 * eighths) and positions.shape == (rows, eighths)
    assert positions.dtype == torch.uint8
    assert torch.equal(semi_structured.expand(values, positions), weight)


def test_by_hand() -> None:
    weight = torch.tensor([[0.0, 5.0, 0.0, -2.0, 7.0, 0.0, 1.0, 0.0]])
    values, positions = semi_structured.compress(weight)
    assert values.tolist() == [[5.0, -2.0, 7.0, 1.0]]
    assert positions.tolist() == [[(1 + 4 * 3) + 16 * (0 + 4 * 2)]]


def test_nibbles_are_the_hardwares() -> None:
    """The nibbles PyTorch hands to the tensor cores are these, rearranged."""
    weight = magnitude.prune(torch.randn(32, 64), pattern=(2, 4)).half()
    packed, meta = sparse_semi_structured_from_dense_cutlass(weight)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, meta), weight)
    values, positions = semi_structured.compress(weight)
    assert torch.equal(values, packed)
    mine = positions.view(torch.int16).flatten().sort().values  # four groups a word, as there
    assert torch.equal(mine, meta.flatten().sort().values)


def test_bytes_and_product() -> None:
    weight = magnitude.prune(torch.randn(24, 32), pattern=(2, 4)).bfloat16()
    stored = semi_structured.sparse(weight)
    assert stored.nbytes == weight.nbytes * 9 // 16
    assert stored.shape == weight.shape and stored.dtype == weight.dtype
    x = torch.randn(3, 32).bfloat16()
    torch.testing.assert_close(stored.multiply(x), x @ weight.T)
    assert torch.equal(stored.to("cpu").dequantize(), weight)


def test_refuses_what_is_not_2_of_4() -> None:
    for weight in (torch.ones(2, 8), torch.zeros(2, 12), torch.zeros(8)):
        with pytest.raises(ConfigError, match=r"2:4 sparse"):
            semi_structured.sparse(weight)


def test_the_engine_runs_it() -> None:
    config = ModelConfig("llama", 64, 32, 64, 2, 4, 2, 8, 128)
    model = pruning.prune(random_model(config, seed=3), "magnitude", pattern=(2, 4))
    smaller = semi_structured.sparsify(model)
    assert all(isinstance(layer.down, semi_structured.SparseWeight) for layer in smaller.layers)
    assert smaller.parameter_bytes() < model.parameter_bytes()
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    want = LLM(model, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)[0].tokens
    assert LLM(smaller, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)[0].tokens == want


def test_what_is_not_sparse_stays() -> None:
    model = random_model(ModelConfig("llama", 32, 16, 24, 1, 2, 1, 8, 64), seed=1)
    pruned = replace(model, layers=[replace(layer, down=magnitude.prune(layer.down, pattern=(2, 4)))
                                    for layer in model.layers])
    layer = semi_structured.sparsify(pruned).layers[0]
    assert isinstance(layer.down, semi_structured.SparseWeight)
    assert layer.o is model.layers[0].o
