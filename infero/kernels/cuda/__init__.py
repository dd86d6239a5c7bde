"""RMSNorm and chapter 13's experiments in CUDA C++, compiled at run time where there is nvcc.

The `.cu` files beside this one are compiled by `nvcc -shared` for the card of this machine, kept
in a cache under a name that hashes text, compiler and card, and called through ctypes with plain
pointers and PyTorch's current stream. Nothing of the engine depends on it: it is there to be read
beside the Triton kernels, and to be measured against them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from infero.errors import InferoError

FOLDER = Path(__file__).parent
KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class CudaMissing(InferoError):
    """CUDA C++ cannot be compiled or run here."""


def compiler() -> str | None:
    """The path of nvcc, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))


def missing() -> str:
    """What is missing to compile and run CUDA C++ here, in words; "" if nothing is."""
    if compiler() is None:
        return ("There is no nvcc here. It comes with NVIDIA's CUDA toolkit "
                "(https://developer.nvidia.com/cuda-downloads); put its bin folder on PATH.")
    if not torch.cuda.is_available():
        return "nvcc is here, but PyTorch sees no NVIDIA GPU: the kernels compile and cannot run."
    return ""


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "infero" / "cuda"


def compile_file(name: str, arch: str, folder: Path) -> Path:
    """Compile NAME.cu of this folder for an architecture ("sm_90") into a shared library."""
    nvcc = compiler()
    if nvcc is None:
        raise CudaMissing(missing())
    source = FOLDER / f"{name}.cu"
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    mark = hashlib.sha256(source.read_bytes() + version.encode()).hexdigest()[:16]
    target = folder / f"{name}-{arch}-{mark}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        part = Path(made) / target.name
        command = [nvcc, "-shared", "-Xcompiler", "-fPIC", "-O3", "-std=c++17", f"-arch={arch}",
                   "-o", str(part), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise CudaMissing(f"nvcc could not compile {source.name} for {arch}:\n"
                              f"{(done.stderr or done.stdout).strip()}")
        os.replace(part, target)  # whole or not at all, whoever else builds it now
    return target


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The compiled NAME.cu for the current GPU. Raises CudaMissing with what to do."""
    if words := missing():
        raise CudaMissing(words)
    major, minor = torch.cuda.get_device_capability()
    return ctypes.CDLL(str(compile_file(name, f"sm_{major}{minor}", _cache())))


def check(error: int, what: str) -> None:
    """Raise if a launch returned an error of the CUDA runtime."""
    if error:
        raise CudaMissing(f"{what} failed with CUDA error {error} (cudaError_t: 1 is an invalid "
                          "value, 98 a kernel for another card, 701 too many resources).")


def stream() -> ctypes.c_void_p:
    """PyTorch's current stream, as CUDA's runtime takes it."""
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def rms_norm(x: Tensor, weight: Tensor, eps: float, plain: bool = False) -> Tensor:
    """steps.elementwise.rms_norm in CUDA C++: x [.., n] contiguous, weight [n] of x's dtype.

    plain: one number a thread at a time; otherwise 16 bytes, for n a multiple of 16 bytes and at
    most 4,096 packs of them.
    """
    if x.dtype not in KINDS or weight.dtype != x.dtype:
        raise ValueError(f"x is {x.dtype} and weight {weight.dtype}; take float32, float16 or "
                         "bfloat16, the same for both")
    if not x.is_contiguous() or not x.is_cuda:
        raise ValueError("x must be contiguous and on a GPU: x.contiguous().cuda()")
    n = x.shape[-1]
    pack = 16 // x.element_size()
    if not plain and (n % pack or n > 4096 * pack):
        plain = True
    out = torch.empty_like(x)
    function = library("rms_norm").infero_rms_norm
    pointer = ctypes.c_void_p
    error = function(pointer(x.data_ptr()), pointer(weight.data_ptr()), pointer(out.data_ptr()),
                     ctypes.c_int(x.numel() // n), ctypes.c_int(n), ctypes.c_float(eps),
                     ctypes.c_int(KINDS[x.dtype]), ctypes.c_int(not plain), stream())
    check(error, "rms_norm in CUDA C++")
    return out
