"""The attention kernels: FlashAttention in TFLOP/s beside PyTorch's, decode in shares of a read.

    python -m benchmarks.attention_kernels [--smoke] [--out DIR]

FlashAttention is causal, in bf16, with 32 heads of 128 unless the name says otherwise; half of the
square is counted (2 x queries x keys x dim x 2 products / 2). Keys lie dense, or in pages of 16 in
random order; PyTorch's flash and cuDNN attention take the same tensors. Decode attention is timed
in a CUDA graph over copies of the cache that exceed the L2 cache; the rate counts keys and values
once, the share is that of a reduction which reads memory, measured in the same run. Each result is
compared with PyTorch's. Kernels are compiled by several processes first: a variant takes seconds.
Chapters 14 and 16 quote the results. With --smoke tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

if "--smoke" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.limits import GiB, read_samples, samples_s
from infero import results
from infero.kernels import decode, flash
from infero.kernels.language import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter has no bf16 products
PAGE = 16
ROTATED = 300 << 20  # bytes of keys and values that a timed graph goes through at least


@dataclass(frozen=True)
class Prefill:
    """FlashAttention over requests of the same length."""

    name: str
    requests: int
    length: int
    paged: bool = False
    heads: int = 32
    kv_heads: int = 32
    dim: int = 128
    config: flash.Config | None = None

    @property
    def flops(self) -> float:
        return 2 * self.requests * self.heads * self.length**2 * self.dim


@dataclass(frozen=True)
class Decode:
    """One query each of requests with the same context, over pages in random order."""

    name: str
    requests: int
    context: int
    heads: int
    kv_heads: int
    splits: int | None = None  # None: what the engine would take
    config: decode.Config | None = None
    deterministic: bool = False

    @property
    def read(self) -> int:
        return 2 * self.requests * self.context * self.kv_heads * 128 * DTYPE.itemsize


SIZES = ((16, 1024), (4, 4096), (1, 16384))
SPECIALISED = flash.Config(128, 128, 4, 2, copies="specialised")
TILES = {  # of the steps table: who shares what
    "64 queries, 64 keys": flash.Config(64, 64, 4, 2),
    "128 queries, 128 keys": flash.Config(128, 128, 8, 2),
    "128 queries, 64 keys, 3 stages": flash.Config(128, 64, 8, 3),
}


def prefills() -> list[Prefill]:
    if INTERPRETED:
        small = flash.Config(32, 16, 4, 2)
        return [Prefill(f"{kind}_2x40", 2, 40, kind == "paged", 4, 4, 16, small)
                for kind in ("dense", "paged")]
    found = [Prefill(f"{kind}_{n}x{length}", n, length, kind == "paged")
             for n, length in SIZES for kind in ("dense", "paged")]
    found += [Prefill(f"specialised_{n}x{length}", n, length, config=SPECIALISED)
              for n, length in SIZES]
    for kind in ("dense", "paged"):
        found += [Prefill(f"{kind}_d64_4x4096", 4, 4096, kind == "paged", 64, 64, 64),
                  Prefill(f"{kind}_d256_4x4096", 4, 4096, kind == "paged", 16, 16, 256),
                  Prefill(f"{kind}_gqa4_4x4096", 4, 4096, kind == "paged", 32, 8)]
    return found


def tiles() -> list[Prefill]:
    return [] if INTERPRETED else [
        Prefill(name, 4, 4096, paged, config=config)
        for name, config in TILES.items() for paged in (False, True)]


def decodes() -> list[Decode]:
    if INTERPRETED:
        return [Decode("2x40", 2, 40, 4, 2), Decode("1x300", 1, 300, 4, 1)]
    return [Decode("32x4k", 32, 4096, 32, 8), Decode("256x1k", 256, 1024, 16, 8),
            *(Decode(f"1x{n}k", 1, n << 10, 32, 8) for n in (4, 16, 64))]


def variants() -> list[Decode]:
    """Rows of the tables of steps: many requests with other tiles, one with more pieces."""
    if INTERPRETED:
        return []
    full = Decode("32x4k", 32, 4096, 32, 8, 1)
    alone = Decode("1x64k", 1, 65_536, 32, 8)
    cut = decode.Config(least=256)
    return [dataclasses.replace(full, config=decode.Config(64, 4, 3)),
            dataclasses.replace(full, config=decode.Config(64, 2, 3)), full,
            dataclasses.replace(full, splits=4, config=cut),
            dataclasses.replace(full, splits=4, config=dataclasses.replace(cut, ticket=False)),
            dataclasses.replace(full, splits=4, deterministic=True),
            *(dataclasses.replace(alone, splits=n, config=cut) for n in (1, 4, 16, 64))]


# ---------------------------------------------------------------- inputs and calls


def pages(requests: int, length: int, seed: int) -> Tensor:
    """Block tables [requests, blocks]: all pages of the cache in random order."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    blocks = -(-length // PAGE)
    order = torch.randperm(requests * blocks, device=DEVICE, generator=generator)
    return order.view(requests, blocks).int()


def read_back(cache: Tensor, tables: Tensor, length: int) -> Tensor:
    """The keys or values that the tables name: [requests, kv_heads, length, dim]."""
    found = cache.view(-1, PAGE, *cache.shape[1:])[tables.long()]
    return found.flatten(1, 2)[:, :length].transpose(1, 2)


class Flash:
    """Inputs of a Prefill, the engine's call and PyTorch's."""

    def __init__(self, case: Prefill) -> None:
        c = self.case = case
        rows = c.requests * c.length
        self.starts = torch.arange(0, rows + 1, c.length, dtype=torch.int32, device=DEVICE)
        self.contexts = torch.full((c.requests,), c.length, dtype=torch.int32, device=DEVICE)
        self.tables = pages(c.requests, c.length, 0)
        slots = self.tables.numel() * PAGE if c.paged else rows
        self.q = torch.randn(rows, c.heads, c.dim, device=DEVICE, dtype=DTYPE)
        self.k, self.v = (torch.randn(slots, c.kv_heads, c.dim, device=DEVICE, dtype=DTYPE)
                          for _ in range(2))
        self.out = torch.full_like(self.q, torch.nan)

    def __call__(self) -> Tensor:
        c = self.case
        if c.paged:
            return flash.attention(self.q, self.k, self.v, self.starts, self.contexts, self.tables,
                                   PAGE, c.dim**-0.5, longest_query=c.length, out=self.out,
                                   config=c.config)
        return flash.dense(self.q, self.k, self.v, self.starts, self.starts, c.dim**-0.5,
                           longest_query=c.length, out=self.out, config=c.config)

    def views(self) -> list[Tensor]:
        """q, k, v as [requests, heads, length, dim], as PyTorch's attention takes them."""
        c, k, v = self.case, self.k, self.v
        if c.paged:
            k, v = (read_back(t, self.tables, c.length).transpose(1, 2).flatten(0, 1)
                    for t in (k, v))
        return [t.view(c.requests, c.length, -1, c.dim).transpose(1, 2)
                for t in (self.q, k, v)]

    def check(self) -> None:
        """Compare the last request with PyTorch's attention."""
        c = self.case
        self()
        q, k, v = (t[-1:] for t in self.views())
        want = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        got = self.out.view(c.requests, c.length, c.heads, c.dim)[-1]
        compare(c.name, got, want[0].transpose(0, 1))


class Step:
    """Inputs of a Decode, several copies, and the engine's call on one of them."""

    def __init__(self, case: Decode) -> None:
        c = self.case = case
        self.copies = 1 if INTERPRETED else max(2, -(-ROTATED // c.read))
        self.q = torch.randn(c.requests, c.heads, 128, device=DEVICE, dtype=DTYPE)
        self.contexts = torch.full((c.requests,), c.context, dtype=torch.int32, device=DEVICE)
        self.tables = [pages(c.requests, c.context, i) for i in range(self.copies)]
        slots = self.tables[0].numel() * PAGE
        self.caches = [torch.randn(2, slots, c.kv_heads, 128, device=DEVICE, dtype=DTYPE)
                       for _ in range(self.copies)]
        self.splits = c.splits or decode.splits_for(c.requests, c.kv_heads, c.context, DEVICE)

    def __call__(self, i: int = 0) -> Tensor:
        c, i = self.case, i % self.copies
        return decode.attention(self.q, self.caches[i][0], self.caches[i][1], self.tables[i],
                                self.contexts, PAGE, 128**-0.5, splits=self.splits,
                                deterministic=c.deterministic, config=c.config)

    def check(self) -> None:
        """Compare with PyTorch's attention over the gathered keys of the last request."""
        c, cache = self.case, self.caches[0]
        k, v = (read_back(t, self.tables[0][-1:], c.context) for t in cache)
        want = F.scaled_dot_product_attention(self.q[-1:, :, None], k, v, enable_gqa=True)
        compare(c.name, self()[-1], want[0, :, 0])

    def times_s(self, samples: int) -> list[float]:
        """Seconds of a call: all copies in turn inside one CUDA graph."""
        if DEVICE == "cpu":
            return samples_s(self, "cpu", 1, 0)
        stream, calls = torch.cuda.Stream(), 2 * self.copies
        with torch.cuda.stream(stream):
            self()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for i in range(calls):
                    self(i)
        return [t / calls for t in samples_s(lambda _: graph.replay(), "cuda", samples, 2)]


def compare(name: str, got: Tensor, want: Tensor) -> None:
    """RuntimeError where the kernel's result is not PyTorch's up to rounding."""
    error = float((got.float() - want.float()).norm() / want.float().norm())
    if not error < 0.02:
        raise RuntimeError(f"{name} is off by {error:.1%} of its norm.")


# ---------------------------------------------------------------- compiling, several at once


def compile_part(part: Sequence[Prefill | Decode]) -> None:
    """Launch small cases once, so that their kernels are in Triton's cache on disk."""
    for case in part:
        try:
            if isinstance(case, Prefill):
                Flash(dataclasses.replace(case, requests=1, length=300))()
            else:
                splits = case.splits or decode.splits_for(case.requests, case.kv_heads,
                                                          case.context)
                Step(dataclasses.replace(case, requests=2, context=600, splits=splits))()
            torch.cuda.synchronize()
        except Exception as problem:  # it is met again, and reported, where it is measured
            print(f"  {case.name}: {str(problem).splitlines()[0][:100]}", flush=True)


def compile_all(cases: Sequence[Prefill | Decode], processes: int = 15) -> None:
    """One case of each kernel, by several processes: each compiles for seconds on one core."""
    if INTERPRETED:
        return
    different: dict[Any, Prefill | Decode] = {}
    for case in cases:
        if isinstance(case, Prefill):
            key: Any = (case.paged, case.heads, case.kv_heads, case.dim, case.config)
        else:
            splits = case.splits or decode.splits_for(case.requests, case.kv_heads, case.context)
            key = (case.heads, case.config, case.deterministic, (splits - 1).bit_length() // 2)
        different.setdefault(key, case)
    work = list(different.values())
    with multiprocessing.get_context("spawn").Pool(min(processes, os.cpu_count() or 1)) as pool:
        pool.map(compile_part, [work[i::processes] for i in range(processes)], chunksize=1)


# ---------------------------------------------------------------- what is measured


def measure_prefill(r: Any, case: Prefill, samples: int, peers: bool) -> float | None:
    """The rate of one case, and of PyTorch's attention on the same tensors; None if it failed."""
    call = Flash(case)
    try:
        call.check()
    except Exception as problem:  # a warp-specialised kernel depends on the compiler's version
        if case.config is not SPECIALISED:
            raise
        print(f"  {case.name}: {str(problem).splitlines()[0][:100]}", flush=True)
        return None
    times = samples_s(lambda _: call(), DEVICE, samples, 2)
    rates = [case.flops / t for t in times]
    if peers and DEVICE == "cuda":
        length = f"{case.requests}x{case.length}"
        for name, backend in (("torch_flash", SDPBackend.FLASH_ATTENTION),
                              ("cudnn", SDPBackend.CUDNN_ATTENTION)):
            q, k, v = call.views()

            def theirs(_: int, q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

            try:
                with sdpa_kernel(backend):
                    beside = samples_s(theirs, DEVICE, samples, 2)
            except RuntimeError as problem:
                print(f"  no {name}: {str(problem)[:80]}", flush=True)
                continue
            r.value(f"{name}_{length}", [case.flops / t for t in beside], unit="flop/s",
                    note="PyTorch's scaled_dot_product_attention, the same tensors")
    if r is not None:
        r.value(f"flash_{case.name}", rates, unit="flop/s", note=f"causal, {case.heads} heads of "
                f"{case.dim} on {case.kv_heads} KV heads")
    return statistics.median(rates)


def measure_decode(case: Decode, samples: int) -> list[float]:
    """Bytes of keys and values a second, by sample; the result is compared first."""
    step = Step(case)
    step.check()
    return [case.read / t for t in step.times_s(samples)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention_kernels",
                                     description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    samples = 2 if args.smoke else 9
    with results.record("attention_kernels", argv=argv, out=args.out, device=DEVICE) as r:
        compile_all([*prefills(), *tiles(), *decodes(), *variants()])
        limit = r.value("read_bandwidth", read_samples(DEVICE, (2 * GiB if DEVICE == "cuda" else
                                                                1 << 22), 10)[0],
                        unit="byte/s", note="the fastest of four reductions")
        found: dict[str, float | None] = {}
        for case in prefills():
            found[case.name] = rate = measure_prefill(
                r, case, samples, case.name.startswith("dense") and case.dim == 128
                and case.heads == case.kv_heads)
            print(f"  flash {case.name}: {(rate or 0) / 1e12:.0f} TFLOP/s", flush=True)
        for name, rate in found.items():
            beside = found.get(name.replace("paged", "dense"))
            if name.startswith("paged") and rate and beside:
                r.value(f"flash_{name}_share", rate / beside, unit="",
                        note="of the rate with dense keys, copied by threads")
        rows: list[list[Any]] = []
        for case in tiles():
            rate = measure_prefill(None, case, samples, peers=False)
            rows.append([case.name, "paged" if case.paged else "dense", rate])
            print(f"  {case.name} {rows[-1][1]}: {(rate or 0) / 1e12:.0f} TFLOP/s", flush=True)
        r.table("tiles", [("tile", ""), ("keys", ""), ("rate", "flop/s")], rows)
        for step in decodes():
            rates = measure_decode(step, samples)
            rate = r.value(f"decode_{step.name}", rates, unit="byte/s",
                           note=f"{step.heads} heads on {step.kv_heads} KV heads of 128, pages "
                                f"of {PAGE} in random order")
            r.value(f"decode_{step.name}_share", [x / limit for x in rates], unit="",
                    note="of the read bandwidth")
            print(f"  decode {step.name}: {rate / 1e9:.0f} GB/s", flush=True)
        rows = []
        for step in variants():
            rate = statistics.median(measure_decode(step, samples))
            c = step.config or decode.Config()
            rows.append([step.name, c.block, c.warps, c.stages, step.splits,
                         "one" if c.ticket else "two", step.deterministic, rate, rate / limit])
            print("  decode", *rows[-1][:7], f"{rate / 1e9:.0f} GB/s", flush=True)
        r.table("decode_variants", [
            ("work", ""), ("keys", ""), ("warps", ""), ("stages", ""), ("pieces", ""),
            ("launches", ""), ("fixed", ""), ("rate", "byte/s"), ("share", "")], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
