"""Block formats against the `gguf` library, torch's own floats, and brute force over the levels."""

from __future__ import annotations

import pytest
import torch

from infero.errors import ConfigError
from infero.quant import blocks

KINDS = ("Q4_0", "Q4_1", "Q8_0")


def numbers(seed: int, *shape: int) -> torch.Tensor:
    """Normal numbers with a few large ones, a constant block, and a block of zeros."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=g) * torch.rand(shape[0], 1, generator=g)
    x[0, 3] *= 30
    x[-1, :32] = 0
    x[1, :32] = 0.7
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_gguf_bytes_and_numbers(kind: str, seed: int) -> None:
    quants = pytest.importorskip("gguf.quants")
    code = getattr(quants.GGMLQuantizationType, kind)
    x = numbers(seed, 7, 96)
    data = blocks.encode(x, kind)
    assert data.dtype == torch.uint8
    assert torch.equal(data, torch.from_numpy(quants.quantize(x.numpy(), code)))
    want = torch.from_numpy(quants.dequantize(data.numpy(), code))
    assert torch.equal(blocks.decode(data, kind), want)
    g = torch.Generator().manual_seed(seed)  # bytes that no encoder wrote
    codes = torch.randint(0, 256, data.shape, generator=g, dtype=torch.uint8)
    codes.unflatten(-1, (3, -1))[..., :4] = data.unflatten(-1, (3, -1))[..., :4]
    want = torch.from_numpy(quants.dequantize(codes.numpy(), code))
    assert torch.equal(blocks.decode(codes, kind), want)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_on_the_grid_stays(kind: str) -> None:
    """Q4_1 of a Q4_1 weight is the weight itself: the trap of the default model's own grid."""
    once = blocks.FORMATS[kind][0](numbers(0, 6, 64).half().float())
    again = blocks.FORMATS[kind][0](once)
    assert (again - once).abs().max() <= once.abs().max() * 2e-3  # the scale is float16


def test_nf4_levels() -> None:
    """The table printed in the paper's appendix E (arXiv:2305.14314), to eight digits."""
    paper = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
             -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
             0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
             0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
    assert blocks.nf4_levels() == pytest.approx(paper, abs=2e-7)


def nearest(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return (x[..., None] - levels).abs().amin(dim=-1)


def test_nf4_is_the_nearest() -> None:
    x = numbers(1, 5, 128)
    got = blocks.nf4(x)
    scale = x.unflatten(-1, (-1, 64)).abs().amax(-1, keepdim=True).expand(5, 2, 64).reshape(5, 128)
    levels = scale[..., None] * torch.tensor(blocks.nf4_levels())
    best = (x[..., None] - levels).abs().amin(-1)
    assert torch.allclose((x - got).abs(), best, atol=1e-6)


@pytest.mark.parametrize(("element", "dtype"), [(blocks.E4M3, torch.float8_e4m3fn),
                                                (blocks.E5M2, torch.float8_e5m2)])
def test_elements_are_torchs(element: blocks.Element, dtype: torch.dtype) -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    x = every[every.abs() <= element.largest]
    assert torch.equal(blocks.round_to(x, element), x.to(dtype).float())


def test_e2m1_is_the_nearest() -> None:
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    levels = torch.cat((-levels, levels))
    x = torch.linspace(-6, 6, 1201)
    got = blocks.round_to(x, blocks.E2M1)
    assert set(got.tolist()) <= set(levels.tolist())
    assert torch.allclose((x - got).abs(), nearest(x, levels), atol=1e-6)
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, 100.0])
    assert blocks.round_to(ties, blocks.E2M1).tolist() == [0, 1, 1, 2, 2, 4, 4, 6, 6]


def test_mxfp4_against_the_library() -> None:
    """The library's decoder undoes the bytes that stand for our numbers."""
    quants = pytest.importorskip("gguf.quants")
    if not hasattr(quants, "MXFP4"):
        pytest.skip("this gguf has no MXFP4")
    x = blocks.mxfp4(numbers(2, 4, 64))
    code = quants.GGMLQuantizationType.MXFP4
    again = quants.dequantize(quants.quantize(x.numpy(), code), code)
    assert torch.equal(torch.from_numpy(again), x)


def test_mx_scale_by_hand() -> None:
    """Largest 5: exponent 2, less E2M1's 2 is 0, so the scale is 1 and 5 is a tie to 4."""
    x = torch.zeros(32)
    x[:4] = torch.tensor([5.0, -0.3, 1.3, 2.6])
    assert blocks.mxfp4(x)[:4].tolist() == [4.0, -0.5, 1.5, 3.0]
    assert blocks.mxfp4(x * 2**-20)[:4].tolist() == [v * 2**-20 for v in (4.0, -0.5, 1.5, 3.0)]
    assert blocks.mxint8(torch.full((32,), 1.0)).tolist() == [1.0] * 32


def test_nvfp4_keeps_the_largest() -> None:
    x = numbers(3, 4, 64)
    got = blocks.nvfp4(x)
    largest = x.abs().argmax()
    assert got.flatten()[largest] == pytest.approx(float(x.flatten()[largest]), rel=1e-6)
    assert (got[-1, :32] == 0).all()


@pytest.mark.parametrize("name", blocks.FORMATS)
def test_each_format(name: str) -> None:
    """Shape, dtype, zeros, tiny numbers, and an error that falls with the bits."""
    function, bits = blocks.FORMATS[name]
    x = torch.randn(3, 2, 192, generator=torch.Generator().manual_seed(5))
    got = function(x)
    assert got.shape == x.shape
    assert function(x.bfloat16()).dtype == torch.bfloat16
    error = float((got - x).norm() / x.norm())
    assert error < (0.04 if bits > 8 else 0.13)
    assert (function(torch.zeros(2, 64)) == 0).all()
    assert function(torch.full((1, 64), 1e-30)).isfinite().all()
    with pytest.raises(ConfigError, match="multiple of"):
        function(torch.randn(2, 72))


def test_unknown() -> None:
    with pytest.raises(ConfigError, match="Q4_0, Q4_1"):
        blocks.encode(torch.zeros(32), "Q5_0")
    with pytest.raises(ConfigError, match="Q4_0, Q4_1"):
        blocks.decode(torch.zeros(32, dtype=torch.uint8), "Q5_0")
