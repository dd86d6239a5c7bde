"""Bytes times bytes, and columns kept apart: interpreted kernels and PyTorch against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infero import kernels
from infero.kernels import formats_dynamic, matmul_convert, products
from infero.quant import int8

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAYS = ["torch", "triton"]
SHAPES = [(1, 48, 64), (5, 80, 200), (17, 33, 129), (16, 64, 1024), (70, 130, 96)]


def rand(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def exact(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """Both sides rounded, multiplied in float64."""
    rounded, each = int8.quantize_tokens(x)
    return (rounded.double() * each.double()[:, None]) @ (values.double() * scales[:, None]).T


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_bytes_times_bytes(shape: tuple[int, int, int], way: str, dtype: torch.dtype) -> None:
    tokens, out, inputs = shape
    x, w = rand(tokens, inputs, seed=1, dtype=dtype), rand(out, inputs, seed=2, dtype=dtype)
    bias = rand(out, seed=3, dtype=dtype)
    weight = formats_dynamic.quantize_w8a8(w)
    with kernels.using(kernels=way):
        got = products.linear(x, weight, bias)
    want = exact(x, weight.values, weight.scales) + bias.double()
    assert got.dtype is dtype and got.shape == (tokens, out)
    tolerance = 2e-5 if dtype is torch.float32 else 2e-3
    torch.testing.assert_close(got.double(), want, atol=tolerance * inputs**0.5, rtol=tolerance)


def test_the_kernel_rounds_as_pytorch_does() -> None:
    x = rand(40, 300, seed=4)
    x[3] = 0
    x[5] = torch.arange(300, device=DEVICE) / 2  # many halves after scaling
    for one in (x, x.half(), x[:, :256]):
        values, scales = matmul_convert.to_int8(one)
        wanted, wanted_scales = int8.quantize_tokens(one)
        # PyTorch divides by a number on a GPU by multiplying with its inverse: one ulp away
        torch.testing.assert_close(scales, wanted_scales, rtol=1.2e-7, atol=0)
        same = scales == wanted_scales
        assert torch.equal(values[same], wanted[same]) and int(same.sum()) > len(one) // 4
        assert (values.int() - wanted.int()).abs().max() <= 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("columns", [[], [7], [0, 3, 63]], ids=str)
def test_outliers_stay_as_they_are(columns: list[int], way: str) -> None:
    x, w = rand(9, 64, seed=5), rand(24, 64, seed=6)
    chosen = torch.tensor(columns, dtype=torch.int64, device=DEVICE)
    x[:, chosen] *= 100
    weight = formats_dynamic.quantize_outliers(w, chosen)
    rest = x.index_fill(1, chosen, 0)
    want = exact(rest, weight.values, weight.scales) + (
        x[:, chosen].double() @ w[:, chosen].double().T)
    with kernels.using(kernels=way):
        got = products.linear(x, weight)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
    error = (got - x @ w.T).norm() / (x @ w.T).norm()
    assert error < 0.02 and torch.equal(weight.dequantize()[:, chosen], w[:, chosen])


@pytest.mark.parametrize("way", WAYS)
def test_neighbours_of_the_product(way: str) -> None:
    """Norm, SwiGLU and residual around it, as the fused pass asks for them."""
    x, w, norm = rand(6, 64, seed=7), rand(48, 64, seed=8), rand(64, seed=9)
    residual, weight = rand(6, 24, seed=10), formats_dynamic.quantize_w8a8(w)
    with kernels.using(kernels=way):
        got = products.linear(x, weight, norm=norm, residual=residual.clone(), swiglu=True)
    normed = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5) * norm
    gate, up = exact(normed, weight.values, weight.scales).chunk(2, dim=1)
    want = residual.double() + gate * torch.sigmoid(gate) * up
    torch.testing.assert_close(got.double(), want, atol=2e-2, rtol=2e-2)


def test_a_learners_product_is_called() -> None:
    calls = 0

    def linear_w8a8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None = None
                    ) -> Tensor:
        nonlocal calls
        calls += 1
        return before(x, values, scales, bias)

    weight, before = formats_dynamic.quantize_w8a8(rand(8, 32, seed=11)), int8.linear_w8a8
    int8.linear_w8a8 = linear_w8a8  # type: ignore[assignment]
    try:
        with kernels.using(kernels="triton"):
            products.linear(rand(2, 32, seed=12), weight)
    finally:
        int8.linear_w8a8 = before  # type: ignore[assignment]
    assert calls == 1
