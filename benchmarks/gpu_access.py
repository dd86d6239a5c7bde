"""Access patterns in CUDA C++, one measurement a function: `benchmarks.gpu_experiments` runs them.

Each launches a kernel of infero/kernels/cuda/experiments.cu and returns seconds, medians of several
launches. Chapter 13.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.limits import samples_s
from infero.kernels import cuda
from infero.kernels.language import INTERPRETED, tl, triton


@triton.jit
def transpose_kernel(x, out, side, TILE: tl.constexpr):
    """out = x transposed, both [side, side]; a tile a program, through `tl.trans`."""
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)
    column = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tile = tl.load(x + row[:, None] * side + column[None, :])
    tl.store(out + column[:, None] * side + row[None, :], tl.trans(tile))


def median(run: Callable[[int], object], n: int = 9, warmup: int = 3) -> float:
    """Median seconds of run(i) on the GPU (on a CPU, in a smoke run, of the wall clock)."""
    device = "cpu" if INTERPRETED else "cuda"
    return statistics.median(samples_s(run, device, n, warmup))


def pointer(tensor: Tensor, elements: int = 0) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr() + elements * tensor.element_size())


def strided(data: Tensor, count: int, stride: int, offset: int, blocks: int) -> float:
    """Useful byte/s of reading `count` floats, number j at j * stride + offset."""
    lib, out = cuda.library("experiments"), torch.zeros(1, device="cuda")
    half = data.numel() // 2 if (count * stride + offset) * 2 <= data.numel() else 0

    def run(i: int) -> None:
        error = lib.infero_read_strided(pointer(data, half * (i % 2)), pointer(out),
                                        ctypes.c_long(count), stride, offset, blocks,
                                        cuda.stream())
        cuda.check(error, "read_strided")

    return 4 * count / median(run)


def wide(data: Tensor, width: int, blocks: int) -> float:
    """Byte/s of reading `data`, `width` bytes a thread and load, one load in flight a thread."""
    lib, out = cuda.library("experiments"), torch.zeros(1, device="cuda")
    size = data.numel() * 4

    def run(_: int) -> None:
        cuda.check(lib.infero_read_wide(pointer(data), pointer(out), ctypes.c_long(size), width,
                                        blocks, cuda.stream()), "read_wide")

    return size / median(run)


def banks(stride: int, sms: int, rounds: int = 2000) -> float:
    """Byte/s of shared memory, all SMs together, when lane l reads word l * stride + u."""
    lib, out = cuda.library("experiments"), torch.zeros(1, device="cuda")

    def run(_: int) -> None:
        cuda.check(lib.infero_read_banks(pointer(out), stride, rounds, 2 * sms, cuda.stream()),
                   "read_banks")

    return 2 * sms * 1024 * rounds * 16 * 4 / median(run, 5, 1)


def resident(data: Tensor, width: int, threads: int, blocks: int, facts: object) -> float:
    """Byte/s of reading `data` with exactly `blocks` blocks of `threads` threads on every SM."""
    lib, out = cuda.library("experiments"), torch.zeros(1, device="cuda")
    sms = facts.multi_processor_count
    total = facts.shared_memory_per_multiprocessor
    shared = min(total // blocks - 1024, total - 1024) // 256 * 256
    if lib.infero_resident_blocks(width, threads, shared) != blocks:
        shared -= 256
    found = lib.infero_resident_blocks(width, threads, shared)
    if found != blocks:
        raise RuntimeError(f"An SM holds {found} blocks of {threads} threads and {shared} bytes, "
                           f"not {blocks}: the occupancy sweep needs other sizes on this card.")
    size = data.numel() * 4

    def run(_: int) -> None:
        error = lib.infero_read_resident(pointer(data), pointer(out), ctypes.c_long(size), width,
                                         sms * blocks, threads, shared, cuda.stream())
        cuda.check(error, "read_resident")

    return size / median(run, 5, 2)


def transposes(side: int) -> list[tuple[str, float]]:
    """(way, byte/s in and out) of transposing a [side, side] matrix of float32."""
    x, out = torch.randn(side, side, device="cuda"), torch.empty(side, side, device="cuda")
    lib = cuda.library("experiments")

    def ours(way: int) -> Callable[[int], object]:
        return lambda _: cuda.check(lib.infero_transpose(pointer(x), pointer(out), side, way,
                                                         cuda.stream()), "transpose")

    def in_triton(_: int) -> None:
        grid = (side // 64, side // 64)
        transpose_kernel[grid](x, out, side, TILE=64, num_warps=8)

    ways: list[tuple[str, Callable[[int], object]]] = [
        ("CUDA C++: straight", ours(0)), ("CUDA C++: shared tile", ours(1)),
        ("CUDA C++: padded tile", ours(2)), ("Triton: tl.trans", in_triton),
        ("PyTorch: x.t().contiguous()", lambda _: out.copy_(x.t())),
    ]
    found = []
    for name, run in ways:
        out.fill_(float("nan"))
        run(0)
        if not torch.equal(out, x.t()):
            raise RuntimeError(f"{name} does not transpose.")
        found.append((name, 8 * side * side / median(run)))
    return found
