"""Sizes of the KV cache, and how much memory there is for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from infero import roofline
from infero.cache import contiguous, memory, shapes
from infero.errors import ParameterError
from tests.conftest import tiny_config


@pytest.mark.parametrize(("name", "kib"), [
    ("smollm2-135m", 22.5), ("qwen3-0.6b", 112), ("llama-3-8b", 128), ("llama-3-70b", 320),
])  # fmt: skip
def test_published_models(name: str, kib: float) -> None:
    shape = roofline.shape(name)
    assert memory.kv_bytes_per_token(shape) == 1024 * kib
    assert memory.kv_bytes_per_token(shape, 1) == 512 * kib
    assert memory.kv_bytes_per_token(shape) == roofline.kv_bytes_per_token(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_it_is_what_the_tensors_take(dtype: torch.dtype) -> None:
    config = tiny_config(num_kv_heads=3, num_layers=5)
    cache = contiguous.allocate(config, 2, 7, dtype, "cpu")
    assert cache.bytes == 2 * 7 * memory.kv_bytes_per_token(config, dtype.itemsize)
    assert isinstance(memory.kv_bytes_per_token(config, dtype.itemsize), int)


def test_blocks_that_fit() -> None:
    config = tiny_config()
    block = 16 * memory.kv_bytes_per_token(config, 4)
    for budget, want in [(0, 0), (block - 1, 0), (block, 1), (10 * block + 5, 10), (-3, 0)]:
        assert memory.blocks_that_fit(config, 16, 4, budget) == want


def test_free_memory_is_plausible() -> None:
    assert 2**20 < memory.free_memory_bytes("cpu") < 2**45
    assert isinstance(memory.free_memory_bytes(torch.device("cpu")), int)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_free_memory_of_a_gpu() -> None:
    before = memory.free_memory_bytes("cuda")
    held = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    assert before - memory.free_memory_bytes("cuda") == pytest.approx(held.numel(), rel=0.1)
    del held  # back with PyTorch's allocator, which the driver does not call free
    assert memory.free_memory_bytes("cuda") == pytest.approx(before, rel=0.01)


@pytest.fixture
def no_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)


@pytest.mark.usefixtures("no_psutil")
def test_linux_says_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "none")
    assert memory.free_memory_bytes("cpu") == 600 * 1024


@pytest.mark.usefixtures("no_psutil")
def test_without_meminfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 8}.get)
    assert memory.system_memory_bytes() == 400

    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    with pytest.raises(ParameterError, match="kv_memory_bytes"):
        memory.system_memory_bytes()


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.container_memory_bytes() is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert memory.container_memory_bytes() == 450
    assert memory.free_memory_bytes("cpu") == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.container_memory_bytes() is None


def test_a_container_s_limit_in_the_older_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("1000")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1200")
    (tmp_path / "memory/memory.stat").write_text("total_inactive_file 100\n")
    assert memory.container_memory_bytes() == 0


def test_published_caches() -> None:
    rows = shapes.published()
    kib = {key: row.bytes_per_token() / 1024 for key, row in rows.items()}
    assert (kib["llama-2-7b"], kib["llama-3-8b"], kib["falcon-7b"]) == (512, 128, 8)
    assert kib["deepseek-v3"] == pytest.approx(68.625)
    assert list(kib.values()) == sorted(kib.values())
    for key in roofline.MODELS:
        assert rows[key].bytes_per_token(8) == memory.kv_bytes_per_token(roofline.shape(key), 1)
        assert rows[key].request_bytes(100) == 100 * memory.kv_bytes_per_token(roofline.shape(key))


def test_windows_forget() -> None:
    rows = shapes.published()
    mistral, gemma = rows["mistral-7b"], rows["gemma-3-27b"]
    assert mistral.request_bytes(20_000) == mistral.request_bytes(4096)
    assert mistral.request_bytes(1000) == 1000 * mistral.bytes_per_token()
    grown = gemma.request_bytes(50_000) - gemma.request_bytes(40_000)
    assert grown == 10_000 * gemma.bytes_per_token() * 10 / 62


def test_requests_that_fit() -> None:
    llama = shapes.published()["llama-3-8b"]
    assert llama.requests_that_fit(8192, 80e9) == 52
    assert llama.requests_that_fit(8192, 10e9) == 0
    assert llama.requests_that_fit(8192, 80e9, kv_bits=8) == 104
    share = llama.share_of_reads(64, 2048)
    assert share == pytest.approx(64 * 0.268 / (64 * 0.268 + 16.06), rel=0.01)
