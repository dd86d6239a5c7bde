"""A product with its neighbours in one call, interpreted, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from infero import kernels
from infero.kernels import formats, matmul, products

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
KINDS = ("dense", "int8", "int4", "fp8")


def made(kind: str, n: int, k: int, dtype: torch.dtype, group: int = 128, zeros: bool = False,
         device: str = "cpu", seed: int = 0) -> formats.Weight:
    """A random weight of a format."""
    generator = torch.Generator(device).manual_seed(seed)
    w = (torch.randn(n, k, generator=generator, device=device) / k**0.5).to(dtype)
    if kind == "dense":
        return w
    return formats.quantize(w, kind, group, symmetric=not zeros)  # type: ignore[arg-type]


def exact(weight: formats.Weight) -> Tensor:
    """A weight in float64, without the rounding of `dequantize`."""
    if isinstance(weight, Tensor):
        return weight.double()
    if isinstance(weight, formats.Int4Weight):
        k = weight.shape[1]
        of = torch.arange(k, device=weight.device) // weight.group
        zeros = 8.0 if weight.zeros is None else weight.zeros.double()[:, of]
        nibbles = formats.unpack_int4(weight.words, k).double()
        return (nibbles - zeros) * weight.scales.double()[:, of]
    return weight.values.double() * weight.scales.double()[:, None]


def check(weight: formats.Weight, tokens: int, *, norm: bool = False, swiglu: bool = False,
          bias: bool = False, residual: bool = False, seed: int = 1, scale: float = 1.0,
          in_place: bool = True, **options: Any) -> Tensor:
    """products.linear against float64; returns what it computed."""
    n, k = weight.shape
    device, dtype = weight.device, weight.dtype
    generator = torch.Generator(device).manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    n_out = n // 2 if swiglu else n
    x, g = randn(tokens, k) * scale, (1 + 0.1 * randn(k)) if norm else None
    b = randn(n) if bias else None
    r = randn(tokens, n_out) if residual else None
    wide = [None if t is None else t.double() for t in (b, g, r)]
    want = products.composed(x.double(), exact(weight), wide[0], wide[1], 1e-5, wide[2], swiglu,
                             None)
    got = products.linear(x, weight, b, norm=g, eps=1e-5, residual=r, swiglu=swiglu, **options)
    assert got.shape == want.shape and got.dtype == options.get("out_dtype", dtype)
    if in_place and r is not None and got.dtype == dtype:
        assert got.data_ptr() == r.data_ptr()
    assert not got.isnan().any()
    error = float((got.double() - want).norm() / want.norm())
    if isinstance(weight, formats.Int8Weight) and dtype == torch.float32:
        limit = 5e-4  # its float32 carry an offset of 2**15 until the end of a thread's sum
    else:
        limit = TOLERANCE[dtype]
    assert error < limit, f"relative error {error:.1e} of {tuple(weight.shape)} x {tokens}"
    return got


@pytest.fixture(autouse=True)
def _triton():  # type: ignore[no-untyped-def]
    with kernels.using(kernels="triton"):
        yield


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d)[6:])


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 3])
def test_everything_around_a_product(kind: str, tokens: int, dtype: torch.dtype) -> None:
    if kind == "fp8" and tokens > 1 and dtype == torch.float16:
        pytest.skip("the interpreter has no fp8 operands")
    weight = made(kind, 22, 160, dtype)
    check(weight, tokens)
    check(weight, tokens, norm=True, swiglu=True, bias=True, scale=3.0)
    check(weight, tokens, norm=True, bias=True, residual=True, seed=2)


@pytest.mark.parametrize("group,zeros", [(128, True), (64, False), (64, True), (32, True),
                                         (96, False), (192, True), (1000, False)])
def test_groups_of_int4(group: int, zeros: bool) -> None:
    for k in (288, 576):
        weight = made("int4", 7, k, torch.float32, group, zeros)
        check(weight, 1, norm=True)
        check(weight, 2, norm=True)


@pytest.mark.parametrize("k", [7, 50, 66, 132])
def test_rows_that_are_no_whole_words(k: int) -> None:
    for dtype in (torch.float16, torch.float32):
        check(made("dense", 5, k, dtype), 1, norm=True)
        check(made("int8", 5, k, dtype), 1, norm=True)


def test_long_rows_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = {"rows": 8, "words": 64, "warps": 4, "whole": False, "programs": 1}
    whole = {"rows": 8, "words": 256, "warps": 4, "whole": True, "programs": 1}
    for config in (pieces, whole):
        monkeypatch.setattr(matmul, "vector_config", lambda *_: config)  # noqa: B023
        for kind in KINDS:
            check(made(kind, 14, 480, torch.float16), 1, norm=True, residual=True)
            check(made(kind, 14, 480, torch.float16), 1, norm=True, swiglu=True)


@pytest.mark.parametrize("splits", [2, 5])
def test_parts_of_k_are_added_in_their_order(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"rows": 16, "tokens": 4, "inputs": 64, "warps": 4, "stages": 2, "splits": splits}
    monkeypatch.setattr(matmul, "dot_config", lambda *_: config)
    for kind in ("dense", "int4"):
        weight = made(kind, 20, 400, torch.float16)
        for _ in range(2):  # the tickets are zeros again
            check(weight, 5, norm=True, residual=True, bias=True, deterministic=True)
        check(weight, 3, norm=True, swiglu=True)
    assert not matmul._made[torch.device("cpu")].any()


def test_deterministic_rows_do_not_depend_on_the_batch() -> None:
    for kind in ("dense", "int8", "int4"):
        weight = made(kind, 20, 96, torch.float16)
        x, g = torch.randn(21, 96).half(), torch.ones(96).half()
        every = products.linear(x, weight, norm=g, deterministic=True)
        for tokens in (1, 2, 17):
            few = products.linear(x[:tokens], weight, norm=g, deterministic=True)
            assert torch.equal(few, every[:tokens])


def test_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("dense", "int8", "int4"):
        weight = made(kind, 24, 64, torch.float32)
        check(weight, 70, norm=True, swiglu=True)
        monkeypatch.setitem(products.UNPACKED, type(weight), 16)
        check(weight, 70, norm=True, residual=True, bias=True)
        check(weight, 20, norm=True, residual=True)


def test_output_of_another_type_and_repeated_runs() -> None:
    weight = made("int4", 16, 128, torch.float16)
    first = check(weight, 1, norm=True, out_dtype=torch.float32)
    assert torch.equal(first, check(weight, 1, norm=True, out_dtype=torch.float32))


def test_the_residual_is_not_overwritten_where_it_is_the_input() -> None:
    weight = made("dense", 48, 48, torch.float32)
    x = torch.randn(1, 48)
    want = x + x @ weight.t()
    torch.testing.assert_close(products.linear(x, weight, residual=x), want)


def test_pytorch_computes_the_same() -> None:
    with kernels.using(kernels="torch"):
        for kind in KINDS:
            check(made(kind, 22, 160, torch.float32), 3, norm=True, swiglu=True, bias=True)
            check(made(kind, 22, 160, torch.float32), 3, residual=True, in_place=False)


def test_no_rows_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that ends no prompt asks the head for no row: nothing may be unpacked for it."""
    weight = formats.quantize(torch.randn(64, 128), "int4", 32)
    monkeypatch.setattr(formats.Int4Weight, "dequantize", None)
    assert products.linear(torch.zeros(0, 128), weight).shape == (0, 64)
    assert products.linear(torch.zeros(0, 128), weight, swiglu=True).shape == (0, 32)
