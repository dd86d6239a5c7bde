"""Grouped matmul: routing, tiles and the one launch, against the loop over experts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infero import grouped
from infero.kernels import language

triton_only = pytest.mark.skipif(not language.available(), reason="Triton is a Linux package")


def chosen(tokens: int, experts: int, choices: int, seed: int) -> torch.Tensor:
    """Each token's experts, all different, with some experts far more popular than others."""
    g = torch.Generator().manual_seed(seed)
    liked = torch.rand(tokens, experts, generator=g) + torch.linspace(0, 1, experts)
    return liked.topk(choices, dim=1).indices


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 40), experts=st.integers(1, 9), block=st.sampled_from([1, 4, 16]),
       seed=st.integers(0, 99))
def test_every_row_is_in_exactly_one_tile(tokens: int, experts: int, block: int, seed: int) -> None:
    picks = chosen(tokens, experts, min(2, experts), seed)
    routing = grouped.route(picks, experts)
    rows = picks.numel()
    assert sorted(routing.order.tolist()) == list(range(rows))
    seen = []
    for expert, first in grouped.tile_list(routing.starts, rows, block).tolist():
        if expert < 0:
            continue
        assert picks.flatten()[routing.order[first]] == expert
        end = min(first + block, int(routing.starts[expert + 1]))
        assert first < end
        seen += range(first, end)
    assert seen == list(range(rows))


@triton_only
@pytest.mark.parametrize(("tokens", "experts", "choices", "out", "inner"), [
    (1, 4, 2, 17, 40), (9, 3, 1, 70, 33), (37, 8, 3, 20, 64), (5, 1, 1, 8, 16)])
def test_one_launch_equals_the_loop(tokens: int, experts: int, choices: int, out: int,
                                    inner: int) -> None:
    g = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, inner, generator=g)
    weights = torch.randn(experts, out, inner, generator=g)
    routing = grouped.route(chosen(tokens, experts, choices, tokens), experts)
    want = grouped.grouped_reference(x.double(), weights.double(), routing)
    got = grouped.grouped_matmul(x, weights, routing)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-4)


@triton_only
def test_an_expert_without_tokens_and_one_with_all() -> None:
    g = torch.Generator().manual_seed(0)
    x, weights = torch.randn(20, 32, generator=g), torch.randn(5, 16, 32, generator=g)
    routing = grouped.route(torch.full((20, 1), 3), 5)
    torch.testing.assert_close(grouped.grouped_matmul(x, weights, routing), x @ weights[3].T,
                               rtol=1e-5, atol=1e-4)


def test_mixing_returns_to_the_tokens() -> None:
    picks = chosen(11, 6, 2, 4)
    routing = grouped.route(picks, 6)
    weights = torch.randn(6, 7, 5, dtype=torch.float64)
    x, gates = torch.randn(11, 5, dtype=torch.float64), torch.rand(11, 2, dtype=torch.float64)
    got = grouped.mix(grouped.grouped_reference(x, weights, routing), routing, gates)
    want = torch.einsum("tk,tkoi,ti->to", gates, weights[picks], x)
    torch.testing.assert_close(got, want)


@triton_only
def test_it_compiles_for_cards_that_are_not_here() -> None:
    code = ("from infero.kernels import examples\n"
            "for target in ((8, 0), (9, 0)):\n"
            "    found = examples.compile_one('infero.grouped', 0, target)\n"
            "    assert not found.error, found.error\n")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True,
                          text=True, env={**os.environ, "TRITON_INTERPRET": "0"})
    assert done.returncode == 0, done.stderr
