"""Weights of every format through a file and back, and what a folder keeps of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infero.errors import LoadError
from infero.kernels import formats, formats_dynamic
from infero.kernels.ordered import OrderedWeight
from infero.quant import affine, codes, folder, manifest
from infero.quant.manifest import Manifest
from tests.conftest import tiny_config


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """One weight of every format."""
    w = torch.randn(48, 96, generator=torch.Generator().manual_seed(1)).to(dtype) / 8
    plain = formats.quantize(w, "int4", 32)
    assert isinstance(plain, formats.Int4Weight)
    return {
        "int8": formats.quantize(w, "int8"), "fp8": formats.quantize(w, "fp8"), "int4": plain,
        "int4 with zeros": formats.quantize(w, "int4", 64, symmetric=False),
        "three bits": codes.pack(affine.rtn(w, 3, None), dtype),
        "ordered": OrderedWeight(plain, torch.randperm(96)),
        "w8a8": formats_dynamic.quantize_w8a8(w),
        "outliers": formats_dynamic.quantize_outliers(w, torch.tensor([3, 40])),
        "no outliers": formats_dynamic.quantize_outliers(w, torch.tensor([], dtype=torch.int64)),
    }


def written(tmp_path: Path, weight: Any) -> tuple[Path, Manifest]:
    listed = Manifest(request={}, model={})
    manifest.add_weights(tmp_path, listed, "a.safetensors", {"0.o": weight})
    return tmp_path, manifest.read(tmp_path)


def equal(a: Any, b: Any) -> None:
    assert type(a) is type(b) and a.shape == b.shape and a.dtype == b.dtype
    for x, y in zip(a.tensors(), b.tensors(), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert torch.equal(x.contiguous().view(torch.uint8), y.contiguous().view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", weights())
def test_a_weight_comes_back(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    weight = weights(dtype)[name]
    place, listed = written(tmp_path, weight)
    found = manifest.read_weights(place, listed, "a.safetensors", dtype, torch.device("cpu"))
    assert list(found) == ["0.o"]
    equal(found["0.o"], manifest.kept(weight))
    x = torch.randn(3, 96).to(dtype)
    assert torch.equal(found["0.o"].multiply(x), manifest.kept(weight).multiply(x))
    equal(manifest.kept(manifest.kept(weight)), manifest.kept(weight))  # once is enough


@pytest.mark.parametrize("name", weights())
def test_what_a_folder_keeps_is_close(name: str) -> None:
    weight = weights()[name]
    a, b = weight.dequantize(), manifest.kept(weight).dequantize()
    assert torch.allclose(a, b, rtol=2**-10, atol=1e-7)


@pytest.mark.parametrize("name", weights())
def test_serving_another_dtype_than_the_one_it_was_made_in(name: str, tmp_path: Path) -> None:
    place, listed = written(tmp_path, weights()[name])
    found = manifest.read_weights(place, listed, "a.safetensors", torch.bfloat16,
                                  torch.device("cpu"))["0.o"]
    assert found.dtype == torch.bfloat16 == found.dequantize().dtype
    x = torch.randn(2, 96).bfloat16()
    assert found.multiply(x).dtype == torch.bfloat16


@settings(max_examples=60, deadline=None)
@given(st.integers(-140, 120), st.integers(0, 2**31))
def test_sixteen_bits_only_where_they_do(exponent: int, seed: int) -> None:
    """float32 of any size: kept in 16 bits with 11 of precision near the largest, or as it is."""
    t = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    small = manifest.stored(t)
    assert small.dtype in (torch.float32, torch.float16) and bool(small.isfinite().all())
    limit = t.abs().max() * 2.0**-11
    assert bool(((small.float() - t).abs() <= limit).all())


@pytest.mark.parametrize("t", [torch.ones(8), torch.zeros(3, 0), torch.ones(2, 2).bfloat16(),
                               torch.ones(2, 2, dtype=torch.int8), torch.zeros(2, 2)])
def test_other_tensors_stay_as_they_are(t: torch.Tensor) -> None:
    assert manifest.stored(t) is t


def test_every_format_can_be_kept() -> None:
    """A format that is new in the kernels must come back from a folder too."""
    known = {type(w).__name__ for w in weights().values()}
    for home in (formats, formats_dynamic):
        for kind in vars(home).values():
            own = isinstance(kind, type) and kind.__module__ == home.__name__
            if own and issubclass(kind, formats._Format) and not kind.__name__.startswith("_"):
                assert kind.__name__ in known, kind


def test_a_kind_that_is_no_weight_is_refused() -> None:
    for name in ("Model", "torch", "pack_int4", "_Watch", ""):
        with pytest.raises(LoadError, match="does not know"):
            manifest.kind_of(name)


def test_the_shape_of_a_model_comes_back() -> None:
    import json
    from dataclasses import asdict

    from infero.loading import config
    from infero.model import RopeScaling

    for changes in ({}, {"sliding_window": 7, "sliding_layers": (1,), "architecture": "qwen2"},
                    {"rope_scaling": RopeScaling("llama3", 8.0), "eos_token_ids": (1, 2)}):
        shape = tiny_config(**changes)
        assert folder.model_config(json.loads(json.dumps(asdict(shape)))) == shape
    shape = tiny_config(eos_token_ids=(3,), bos_token_id=1,
                        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192))
    assert config.from_hf(json.loads(json.dumps(folder.hf_config(shape)))) == shape


def test_requests_are_told_apart_by_what_matters() -> None:
    one = {"method": "rtn", "base": {"name": "a", "sha256": "1" * 64}, "settings": {"bits": 4}}
    other = {"method": "rtn", "base": {"name": "b", "sha256": "1" * 64}, "settings": {"bits": 3}}
    assert folder.differences(one, one) == []
    assert folder.differences(one, other) == ["settings bits 4, now 3"]
    assert folder.differences(one, {**one, "base": {"name": "a", "sha256": "2" * 64}}) == [
        "base sha256 111111111111…, now 222222222222…"]
