"""Lab 13's kernels interpreted against float64, what they compile to, and the CUDA C++ beside."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infero import model
from infero.kernels import cuda
from infero.kernels.steps import coalescing, elementwise
from tests.kernels import oracles
from tests.kernels.oracles import close, randn

ROOT = Path(__file__).resolve().parents[2]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d)[6:])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 16), (5, 33), (2, 3, 70)], ids=str)


@DTYPES
@SHAPES
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, w = randn(1, *shape, dtype=dtype) * 3 + 1, randn(2, shape[-1], dtype=dtype)
    got = elementwise.rms_norm(x, w, 1e-5)
    assert got.dtype == dtype and got.shape == x.shape
    close(got, model.rms_norm(x.double(), w.double(), 1e-5))
    assert torch.equal(got, elementwise.rms_norm(x, w, 1e-5))


def test_rms_norm_of_views() -> None:
    wide, w = randn(3, 4, 5, 20), randn(4, 20)
    for x in (wide[:, :2], wide[::2], wide.transpose(0, 1), randn(5, 20, 8).t()[:, :20]):
        weight = w[: x.shape[-1]]
        close(elementwise.rms_norm(x, weight, 1e-6),
              model.rms_norm(x.double(), weight.double(), 1e-6))


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (2, 1030)], ids=str)
def test_swiglu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    both = randn(1, shape[0], 2 * shape[1], dtype=dtype) * 3
    gate, up = both.chunk(2, dim=-1)
    for a, b in ((gate, up), (gate.contiguous(), up.contiguous())):
        close(elementwise.swiglu(a, b), model.swiglu(a.double(), b.double()))


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (4, 7), (3, 130)], ids=str)
def test_softmax(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = randn(5, *shape, dtype=dtype) * 30 - 40
    x[0, 1:] = -torch.inf
    close(elementwise.softmax(x), x.double().softmax(-1))


@DTYPES
@pytest.mark.parametrize(("tokens", "heads", "half"), [(1, 1, 1), (3, 5, 4), (4, 2, 33)])
def test_rope(tokens: int, heads: int, half: int, dtype: torch.dtype) -> None:
    x = randn(6, tokens, heads + 2, 2 * half, dtype=dtype)[:, 1:-1]
    positions = torch.randint(0, 100, (tokens,), generator=torch.Generator().manual_seed(1))
    inv_freq = torch.rand(half, generator=torch.Generator().manual_seed(2))
    want = oracles.rope(x, positions, inv_freq)
    for rotate in (elementwise.rope, elementwise.rope_by_token):
        close(rotate(x, positions, inv_freq), want, units=4)


# -- what the compiler makes of it (chapter 13 quotes these counts) -------------------------------

COUNT = """\
import collections, re
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from infero.kernels.steps.elementwise import rms_norm_kernel
signature = {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "n": "i32", "eps": "fp32",
             "BLOCK": "constexpr"}
for known in ((0, 1, 2, 3), (0, 1, 2)):
    source = ASTSource(rms_norm_kernel, signature, {"BLOCK": 4096},
                       {(i,): [["tt.divisibility", 16]] for i in known})
    kernel = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    print(dict(collections.Counter(re.findall(r"ld\\.global[\\w.]*", kernel.asm["ptx"]))))
"""


def test_a_length_divisible_by_16_gives_wide_loads() -> None:
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0",
               "HOME": str(Path.home())}
    done = subprocess.run([sys.executable, "-c", COUNT], env=environ, capture_output=True,
                          text=True, check=True)
    wide, narrow = (dict(re.findall(r"'(ld\S+)': (\d+)", line))
                    for line in done.stdout.splitlines())
    assert wide == {"ld.global.v4.b32": "8"}
    assert narrow == {"ld.global.b16": "64"}


# -- counting sectors and banks -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_sectors_lines_and_banks_against_single_bytes(seed: int) -> None:
    pick = random.Random(seed)
    for size in (1, 2, 4, 8, 12, 16, 48):
        indexes = [pick.randrange(500) for _ in range(pick.randint(1, 32))]
        touched = {i * size + at for i in indexes for at in range(size)}
        assert coalescing.sectors(indexes, size) == len({b // 32 for b in touched})
        assert coalescing.lines(indexes, size) == len({b // 128 for b in touched})
        words = {b // 4 for b in touched}
        most = max(sum(w % 32 == bank for w in words) for bank in range(32))
        assert coalescing.bank_conflicts(indexes, size) == most
        share = len(set(indexes)) * size / (32 * coalescing.sectors(indexes, size))
        assert coalescing.efficiency(indexes, size) == share


def test_the_chapter_s_patterns() -> None:
    import math

    assert coalescing.sectors(range(32), 4) == 4
    assert coalescing.sectors(range(3, 35), 4) == 5
    assert coalescing.sectors(range(0, 32 * 4096, 4096), 2) == 32
    assert coalescing.sectors(range(32), 2) == 2
    for stride in range(1, 70):
        lanes = [lane * stride for lane in range(32)]
        assert coalescing.bank_conflicts(lanes) == math.gcd(stride, 32)
    assert coalescing.bank_conflicts([7] * 32) == 1
    assert coalescing.bandwidth(range(0, 64, 2), 4, 8.0) == 4.0


# -- CUDA C++ -------------------------------------------------------------------------------------


@pytest.mark.skipif(cuda.compiler() is None, reason="no nvcc here")
@pytest.mark.parametrize("name", ["rms_norm", "experiments"])
def test_the_cuda_files_compile(name: str, tmp_path: Path) -> None:
    made = cuda.compile_file(name, "sm_90", tmp_path)
    assert made.stat().st_size > 1000
    assert cuda.compile_file(name, "sm_90", tmp_path) == made  # found, not made again
    assert list(tmp_path.iterdir()) == [made]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda, "compiler", lambda: None)
    assert "nvcc" in cuda.missing() and "PATH" in cuda.missing()
    cuda.library.cache_clear()
    with pytest.raises(cuda.CudaMissing, match="nvcc"):
        cuda.library("rms_norm")
    with pytest.raises(cuda.CudaMissing, match="nvcc"):
        cuda.compile_file("rms_norm", "sm_90", tmp_path)


def test_an_error_of_nvcc_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if cuda.compiler() is None:
        pytest.skip("no nvcc here")
    (tmp_path / "bad.cu").write_text("__global__ void k() { nonsense; }")
    monkeypatch.setattr(cuda, "FOLDER", tmp_path)
    with pytest.raises(cuda.CudaMissing, match="nonsense"):
        cuda.compile_file("bad", "sm_90", tmp_path / "cache")


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        cuda.rms_norm(torch.ones(2, 4).double(), torch.ones(4).double(), 1e-5)
    with pytest.raises(ValueError, match="contiguous"):
        cuda.rms_norm(torch.ones(2, 4), torch.ones(4), 1e-5)
