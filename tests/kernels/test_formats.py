"""Weight formats: packing, rounding to nearest, whole models."""

from __future__ import annotations

import pytest
import torch

from infero import model as m
from infero.errors import ConfigError
from infero.kernels import formats
from tests.conftest import tiny_config


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inputs", [1, 31, 32, 128, 129, 576, 1024])
def test_packing_and_back(inputs: int) -> None:
    values = torch.randint(0, 16, (5, inputs), dtype=torch.uint8)
    words = formats.pack_int4(values)
    assert words.dtype == torch.int32 and words.shape == (5, -(-inputs // 128) * 16)
    assert torch.equal(formats.unpack_int4(words, inputs), values)


def test_the_layout_is_the_documented_one() -> None:
    values = torch.randint(0, 16, (3, 300), dtype=torch.uint8)
    halves = formats.pack_int4(values).view(torch.int16)
    for n, k in [(0, 0), (1, 33), (2, 77), (0, 127), (1, 128), (2, 299)]:
        block, i, j = k // 128, k % 128 // 32, k % 32
        assert (int(halves[n, block * 32 + j]) >> (4 * i)) & 15 == int(values[n, k])
    padding = formats.unpack_int4(formats.pack_int4(values), 384)[:, 300:]
    assert padding.eq(8).all()


@pytest.mark.parametrize("kind,bound", [("int8", 0.01), ("int4", 0.16), ("fp8", 0.04)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounding(kind: formats.Kind, bound: float, dtype: torch.dtype) -> None:
    w = randn(40, 320).to(dtype)
    w[3] = 0
    q = formats.quantize(w, kind)
    assert q.shape == w.shape and q.dtype == dtype and q.dim() == 2 and q.device == w.device
    assert q.nbytes < w.nbytes and not q.is_cuda and not q.requires_grad
    back = q.dequantize()
    assert back.dtype == dtype and back[3].eq(0).all()
    assert float((back - w).float().norm() / w.float().norm()) < bound
    again = formats.quantize(back, kind).dequantize()  # what fits the grid stays
    if kind != "int4":
        assert float((again - back).float().norm() / w.float().norm()) < 0.01
    moved = q.to("cpu")
    assert type(moved) is type(q) and torch.equal(moved.dequantize(), back)


def test_errors_of_int8_are_at_most_half_a_step() -> None:
    w = randn(16, 100)
    q = formats.quantize(w, "int8")
    assert isinstance(q, formats.Int8Weight)
    assert bool(((q.dequantize() - w).abs() <= q.scales[:, None] * 0.501).all())


@pytest.mark.parametrize("group", [32, 64, 96, 128, 192, 1000])
def test_int4_groups(group: int) -> None:
    w = randn(8, 576) * torch.linspace(0.1, 4, 576)
    for symmetric in (True, False):
        q = formats.quantize(w, "int4", group, symmetric=symmetric)
        assert isinstance(q, formats.Int4Weight)
        assert q.scales.shape == (8, -(-576 // min(group, 576)))
        assert (q.zeros is None) == symmetric
        step = q.scales[:, torch.arange(576) // q.group]
        off = (q.dequantize() - w).abs() / step
        assert float(off.max()) <= (1.01 if symmetric else 0.75)  # the largest is clipped


def test_finer_groups_are_nearer() -> None:
    w = randn(32, 512)
    errors = [float((formats.quantize(w, "int4", g).dequantize() - w).norm())
              for g in (32, 128, 512)]
    assert errors == sorted(errors)


def test_rows_are_rounded_alike_in_parts() -> None:
    w = randn(50, 128)
    for kind in formats.KINDS:
        whole, parts = formats.quantize(w, kind), formats.quantize_rows(w, kind, rows=16)
        assert parts.shape == w.shape
        assert torch.equal(whole.dequantize(), parts.dequantize())


def test_what_cannot_be_rounded() -> None:
    with pytest.raises(ConfigError, match="no matrix"):
        formats.quantize(randn(4), "int8")
    with pytest.raises(ConfigError, match="int8, int4, fp8"):
        formats.quantize(randn(4, 4), "int3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of 32"):
        formats.quantize(randn(4, 64), "int4", 20)


@pytest.mark.parametrize("kind", formats.KINDS)
def test_whole_models(kind: formats.Kind) -> None:
    config = tiny_config()
    model = m.random_model(config, seed=1)
    quantized = formats.quantize_model(model, kind, group=32)
    assert quantized.embedding is model.embedding
    for ours, theirs in zip(quantized.layers, model.layers, strict=True):
        assert isinstance(ours.qkv, formats._Format)
        near = ours.down.dequantize()  # type: ignore[attr-defined]
        assert float((near - theirs.down).norm() / theirs.down.norm()) < 0.16
        assert ours.input_norm is theirs.input_norm
    assert isinstance(quantized.head, formats._Format)
    assert formats.quantize_model(model, kind, group=32, head=False).head is model.head
    formats.quantize_model(model, kind, group=32, release=True)
    assert model.layers[0].qkv.numel() == 0 and model.embedding.numel() > 0


@pytest.mark.parametrize(("hidden", "inter", "group"), [
    (256, 512, 128), (576, 1536, 64), (96, 160, 32), (40, 72, 32)])
def test_the_usual_group_divides_every_matrix(hidden: int, inter: int, group: int) -> None:
    model = m.random_model(tiny_config(hidden_size=hidden, intermediate_size=inter, num_heads=4,
                                       num_kv_heads=2, head_dim=hidden // 4))
    assert formats.group_of(model) == group
