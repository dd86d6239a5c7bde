"""The lab's quantized products under the interpreter, against float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from infero.kernels.steps import matmul as steps

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
SIZES = [(1, 17, 64, 32), (5, 33, 136, 8), (3, 40, 256, 128), (17, 70, 512, 256), (2, 5, 8, 8)]


@dataclass
class Case:
    """A random 4-bit weight, its float64 form, and inputs."""

    x: Tensor
    weight: steps.Int4
    values: Tensor
    dense: Tensor


def case(tokens: int, out: int, inner: int, group: int, dtype: torch.dtype = torch.float32,
         device: str = "cpu", seed: int = 0) -> Case:
    g = torch.Generator().manual_seed(seed + 7 * inner + out)
    values = torch.randint(0, 16, (out, inner), generator=g).to(torch.uint8)
    scales = torch.rand(out, inner // group, generator=g) + 0.1
    zeros = torch.randint(0, 16, (out, inner // group), generator=g).float()
    dense = (values.double().unflatten(1, (-1, group)) - zeros[:, :, None]) * scales[:, :, None]
    x = torch.randn(tokens, inner, generator=g).to(dtype)
    weight = steps.Int4(steps.pack_nibbles(values).to(device), scales.to(device),
                        zeros.to(device))
    return Case(x.to(device), weight, values, dense.flatten(1))


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    got = got.double().cpu()
    error = float((got - want).abs().max() / want.abs().max())
    assert error < TOLERANCE[dtype], f"relative error {error:.1e}"


def check_int4(function: Any, c: Case) -> None:
    """Against float64, and the same bits again."""
    y = function(c.x, c.weight.words, c.weight.scales, c.weight.zeros)
    close(y, c.x.double().cpu() @ c.dense.T, c.x.dtype)
    again = function(c.x, c.weight.words, c.weight.scales, c.weight.zeros)
    assert torch.equal(y, again)


def check_int8(tokens: int, out: int, inner: int, dtype: torch.dtype, device: str = "cpu") -> None:
    g = torch.Generator().manual_seed(out)
    values = torch.randint(-128, 128, (out, inner), generator=g).to(torch.int8)
    scales = torch.rand(out, generator=g) / 128
    x = torch.randn(tokens, inner, generator=g).to(dtype)
    y = steps.int8_matvec(x.to(device), values.to(device), scales.to(device))
    close(y, x.double() @ (values.double() * scales.double()[:, None]).T, dtype)


def test_packing_is_undone_exactly() -> None:
    values = torch.arange(16).repeat(4, 3).to(torch.uint8)[:, torch.randperm(48)]
    words = steps.pack_nibbles(values)
    assert words.dtype == torch.int32
    assert words.shape == (4, 6)
    got = steps.unpack_nibbles(words)
    assert got.dtype == torch.float16
    assert torch.equal(got, values.half())


def test_the_order_of_a_word_by_hand() -> None:
    word = steps.pack_nibbles(torch.arange(8, dtype=torch.uint8)[None])
    assert f"{int(word) & 0xFFFFFFFF:08x}" == "75316420"
    top = steps.pack_nibbles(torch.full((1, 8), 15, dtype=torch.uint8))
    assert int(top) == -1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_int4(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    c = case(*size, dtype=dtype)
    check_int4(steps.int4_matmul, c)
    if size[0] < 6:
        check_int4(steps.int4_matvec, c)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_int4_with_sums_of_groups_and_splits(dtype: torch.dtype) -> None:
    for size in ((3, 70, 256, 128), (18, 40, 768, 256)):
        c = case(*size, dtype=dtype)
        check_int4(steps.int4_once, c)
        check_int4(steps.int4_split, c)
        for splits in (2, 5, 9):  # some have nothing to do
            y = steps.int4_once(c.x, c.weight.words, c.weight.scales, c.weight.zeros, splits)
            close(y, c.x.double() @ c.dense.T, dtype)
    with pytest.raises(ValueError, match="multiple of 128"):
        check_int4(steps.int4_once, case(1, 8, 64, 32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_int8(dtype: torch.dtype) -> None:
    for tokens, out, inner in ((1, 17, 40), (3, 33, 129), (4, 5, 300)):
        check_int8(tokens, out, inner, dtype)


def test_dequantize() -> None:
    c = case(1, 9, 96, 32)
    torch.testing.assert_close(steps.dequantize(c.weight, torch.float32).double(), c.dense)
    assert c.weight.group == 32


def test_the_slowest_limit_counts() -> None:
    card = steps.Card(100.0, 1000.0, 500.0)
    assert steps.matmul_time_s(1, 800, 4, 0, card) == 4.0  # 400 bytes
    assert steps.matmul_time_s(10, 800, 4, 0, card) == 16.0  # 16,000 operations
    assert steps.matmul_time_s(64, 800, 4, 5, steps.Card(1e9, 1e9, 500.0)) == 8.0
    assert steps.matmul_time_s(65, 800, 4, 5, steps.Card(1e9, 1e9, 500.0)) == 16.0
    assert steps.crossover_batch(4, 0, card) == 10  # where bf16 is bound by arithmetic as well
    assert steps.crossover_batch(4, 11, card) == 1


def test_linear_by_format() -> None:
    formats = pytest.importorskip("infero.kernels.formats")
    g = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(24, 256, generator=g), torch.randn(24, generator=g)
    for kind in ("int8", "int4"):
        quantized = formats.quantize(weight, kind)
        for tokens in (1, 3, 70):
            x = torch.randn(tokens, 256, generator=g)
            want = x.double() @ quantized.dequantize().double().T + bias
            torch.testing.assert_close(steps.linear(x, quantized, bias).double(), want,
                                       rtol=1e-3, atol=1e-3)
    x = torch.randn(2, 256, generator=g)
    torch.testing.assert_close(steps.linear(x, weight), x @ weight.T)
