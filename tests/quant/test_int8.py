"""Eight-bit activations against float64 and whole numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infero.quant import affine, int8


def make(tokens: int, inputs: int, out: int, seed: int = 0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(tokens, inputs, generator=g) * torch.rand(tokens, 1, generator=g) * 9)
    return x.to(dtype), torch.randn(out, inputs, generator=g)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 1000))
def test_tokens_round_trip(tokens, inputs, seed):
    x, _ = make(tokens, inputs, 1, seed)
    values, scales = int8.quantize_tokens(x)
    assert values.dtype == torch.int8 and scales.dtype == torch.float32
    assert bool((values.int().abs().amax(1) == 127).all())
    error = (values.double() * scales.double()[:, None] - x.double()).abs()
    assert bool((error <= scales.double()[:, None] * 0.5001).all())


def test_tokens_of_zeros_and_none():
    values, scales = int8.quantize_tokens(torch.zeros(3, 5))
    assert not values.any() and scales.tolist() == [1, 1, 1]
    values, scales = int8.quantize_tokens(torch.zeros(0, 5))
    assert values.shape == (0, 5) and scales.shape == (0,)


def test_a_token_does_not_see_its_neighbours():
    x, _ = make(7, 33, 1)
    values, scales = int8.quantize_tokens(x)
    for i in range(7):
        alone, scale = int8.quantize_tokens(x[i:i + 1])
        assert torch.equal(alone[0], values[i]) and scale[0] == scales[i]


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (1, 576, 48), (3, 17, 5), (17, 64, 8),
                                           (5, 1536, 33), (2, 5000, 3), (0, 8, 4)])
@pytest.mark.parametrize("trust", [True, False])
def test_sums_are_exact(m, k, n, trust, monkeypatch):
    if not trust:
        monkeypatch.setattr(int8, "bytes_add_up", lambda: False)
    g = torch.Generator().manual_seed(m)
    a = torch.randint(-127, 128, (m, k), generator=g, dtype=torch.int8)
    b = torch.randint(-127, 128, (n, k), generator=g, dtype=torch.int8)
    a[: m // 2], b[: n // 2] = 127, -127
    got = int8.accumulate(a, b)
    assert got.dtype == torch.int32
    assert torch.equal(got, a.int() @ b.int().t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_product_of_the_rounded(dtype, bias):
    x, weight = make(6, 100, 24, dtype=dtype)
    codes = affine.rtn(weight, 8)
    values = (codes.values.int() - 128).to(torch.int8)
    b = torch.randn(24) if bias else None
    got = int8.linear_w8a8(x, values, codes.scales[:, 0], b)
    tokens, scales = int8.quantize_tokens(x)
    want = (tokens.double() * scales.double()[:, None]) @ codes.dequantize().double().t()
    want = want if b is None else want + b.double()
    assert got.dtype == dtype
    assert torch.allclose(got.double(), want, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5,
                          atol=1e-4)
    exact = x.double() @ weight.double().t() + (0 if b is None else b.double())
    assert (got.double() - exact).norm() / exact.norm() < 0.02


def test_static_scale_clips():
    x = torch.tensor([[1.0, -2.0, 0.26, 300.0]])
    assert int8.quantize_static(x, 0.5).tolist() == [[2, -4, 1, 127]]
    assert int8.quantize_static(-x, torch.tensor(0.5)).tolist() == [[-2, 4, -1, -127]]


def test_the_probe_agrees_with_whole_numbers():
    a = torch.full((3, 300), 127, dtype=torch.int8)
    b = torch.full((64, 300), 127, dtype=torch.int8)
    b[1::2] = -127
    assert torch.equal(int8.accumulate(a, b), a.int() @ b.int().t())
