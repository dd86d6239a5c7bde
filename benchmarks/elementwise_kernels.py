"""The small kernels against the copy limit, and draws without a sort beside PyTorch's with one.

    python -m benchmarks.elementwise_kernels [--smoke] [--out DIR]

RMSNorm, addition and norm, SiLU·mul, and RoPE with its cache write, in bf16 at half a gigabyte read
and written: the rate counts each number once in and once out, for the kernel and for PyTorch's
operations alike, and the share is that of a copy measured in the same run. Then the draw of one
token for each of 256 rows of 151,936 logits and of 64 rows of 128,256, by every kind of parameters;
the tokens are compared with those of `infero.sampling`. Kernels are timed inside a CUDA graph, over
two copies of the inputs that exceed the L2 cache; the sorting way waits for the GPU and so
cannot be captured. Chapters 13 and 16 quote the results. With --smoke tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

if "--smoke" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import partial
from benchmarks.limits import GiB, copy_samples, samples_s
from infero import model, results, sampling
from infero.kernels import activations, norms, rotary, sampler, torch_ops
from infero.kernels.language import INTERPRETED
from infero.sampling import SamplingRows

BYTES = 512 << 20  # read and written by one call
DRAWS = ((256, 151_936), (64, 128_256))  # rows, vocabulary
FILTERS: dict[str, tuple[str, dict[str, float]]] = {
    "greedy": ("greedy", {"temperature": 0.0}),
    "plain": ("plain", {}),
    "top_k": ("filtered", {"top_k": 50}),
    "top_p": ("filtered", {"top_p": 0.9}),
    "min_p": ("filtered", {"min_p": 0.05}),
    "all": ("filtered", {"top_k": 50, "top_p": 0.9, "min_p": 0.05}),
}
SPREADS = {"peaked": 4.0, "flat": 1.0}  # standard deviation of the logits


@dataclass
class Case:
    """One operation on two copies of its inputs: the engine's call and PyTorch's, by copy."""

    name: str
    engine: Callable[[int], object]
    torch: Callable[[int], object]
    bytes_moved: int  # by one call at least
    agree: Callable[[], bool]


def median_s(run: Callable[[int], object], samples: int, capture: bool = True) -> float:
    """Median seconds of one call run(0) or run(1), in a captured graph of four where there is a
    GPU."""
    if INTERPRETED or not capture:
        return statistics.median(samples_s(lambda i: run(i % 2), "cpu" if INTERPRETED else "cuda",
                                           samples, 1))
    for i in range(2):
        run(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(4):
            run(i % 2)
    return statistics.median(samples_s(lambda _: graph.replay(), "cuda", samples, 3)) / 4


# ---------------------------------------------------------------- elementwise


def near(got: Tensor, want: Tensor) -> bool:
    return bool(torch.allclose(got.float(), want.float(), rtol=0.02, atol=0.02))


def norm_cases(n: int, size: int, device: str, dtype: torch.dtype) -> list[Case]:
    """A norm of rows of n, and one behind an addition."""
    rows = max(size // (2 * n * dtype.itemsize), 1)
    weight = torch.randn(n, device=device).to(dtype)
    xs = [torch.randn(rows, n, device=device).to(dtype) for _ in range(2)]
    out = torch.empty_like(xs[0])
    half = rows // 2  # the addition moves twice as much for a row
    residuals = [torch.randn(half, n, device=device).to(dtype) for _ in range(2)]

    def added() -> bool:
        total = xs[0][:half] + residuals[0]
        got, after = norms.add_rms_norm(xs[0][:half], residuals[0].clone(), weight, 1e-5)
        return torch.equal(after, total) and near(got, F.rms_norm(total, (n,), weight, 1e-5))

    def torch_add(i: int) -> Tensor:
        residuals[i].add_(xs[i][:half])
        return F.rms_norm(residuals[i], (n,), weight, 1e-5)

    return [
        Case(f"rms_norm_{n}", lambda i: norms.rms_norm(xs[i], weight, 1e-5, out=out),
             lambda i: F.rms_norm(xs[i], (n,), weight, 1e-5), 2 * xs[0].nbytes,
             lambda: near(norms.rms_norm(xs[0], weight, 1e-5),
                          F.rms_norm(xs[0], (n,), weight, 1e-5))),
        Case(f"add_rms_norm_{n}",
             lambda i: norms.add_rms_norm(xs[i][:half], residuals[i], weight, 1e-5, out[:half]),
             torch_add, 4 * residuals[0].nbytes, added),
    ]


def silu_case(inter: int, size: int, device: str, dtype: torch.dtype) -> Case:
    tokens = max(size // (3 * inter * dtype.itemsize), 1)
    both = [torch.randn(tokens, 2 * inter, device=device).to(dtype) for _ in range(2)]
    out = torch.empty(tokens, inter, device=device, dtype=dtype)

    def plain(i: int) -> Tensor:
        gate, up = both[i].chunk(2, -1)
        return F.silu(gate) * up

    return Case(f"silu_mul_{inter}", lambda i: activations.silu_mul(both[i], out=out), plain,
                both[0].nbytes + out.nbytes,
                lambda: near(activations.silu_mul(both[0]), plain(0)))


def rope_case(name: str, heads: int, kv_heads: int, dim: int, normed: bool, size: int,
              device: str, dtype: torch.dtype) -> Case:
    """RoPE, norms if the model has them, and the write into blocks of 16 in random order."""
    width = (heads + 2 * kv_heads) * dim
    tokens = max(size // (2 * width * dtype.itemsize) // 16, 1) * 16
    qkv = [torch.randn(tokens, width, device=device).to(dtype) for _ in range(2)]
    k, v = (torch.empty(tokens, kv_heads, dim, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty(tokens, heads, dim, device=device, dtype=dtype)
    positions = torch.arange(tokens, device=device) % 4096
    blocks = torch.randperm(tokens // 16, device=device)[:, None] * 16
    slots = (blocks + torch.arange(16, device=device)).flatten()
    inv_freq = 10_000.0 ** (-torch.arange(dim // 2, device=device) / (dim / 2))
    norm = torch.randn(dim, device=device).to(dtype) + 1 if normed else None

    def engine(i: int) -> Tensor:
        return rotary.rotate_and_write(qkv[i], positions, slots, inv_freq, k, v, heads, kv_heads,
                                       norm, norm, out=out)

    def plain(i: int) -> Tensor:
        parts = qkv[i].view(tokens, -1, dim)
        qk = parts[:, : heads + kv_heads]
        if norm is not None:
            qk = F.rms_norm(qk, (dim,), norm, 1e-6)
        turned = torch_ops.rotate(qk, *torch_ops.rotation(positions, inv_freq, dtype))
        k.index_copy_(0, slots, turned[:, heads:])
        v.index_copy_(0, slots, parts[:, heads + kv_heads :])
        return turned[:, :heads]

    def agree() -> bool:
        """Against float32: PyTorch's operations round four times, the kernel once."""
        some, parts = slice(0, 4096), qkv[0].view(tokens, -1, dim)
        qk = parts[some, : heads + kv_heads].float()
        if norm is not None:
            qk = model.rms_norm(qk, norm.float(), 1e-6)
        want = model.rope(qk, positions[some], inv_freq)
        k.zero_(), v.zero_()
        return (near(engine(0)[some], want[:, :heads]) and near(k[slots[some]], want[:, heads:])
                and torch.equal(v[slots], parts[:, heads + kv_heads :]))

    return Case(name, engine, plain, 2 * qkv[0].nbytes, agree)


def elementwise(r: results.Recorder, small: bool, device: str) -> None:
    """Rates of the four operations, and their shares of a copy."""
    dtype = torch.float16 if small else torch.bfloat16
    size = 40_000 if small else BYTES
    if not small:
        copied = copy_samples("cuda", GiB, 20)
        r.value("copy_limit", copied, unit="byte/s", note="1 GiB copied, read and written added")
        top = statistics.median(copied)
    rows: list[list[object]] = []
    makers: list[Callable[[], list[Case]]] = [
        lambda: norm_cases(64 if small else 4096, size, device, dtype),
        lambda: norm_cases(32 if small else 1024, size, device, dtype),
        lambda: [silu_case(80 if small else 14_336, size, device, dtype)],
        lambda: [rope_case("rope_8b", *((3, 1, 16) if small else (32, 8, 128)), False, size,
                           device, dtype)],
        lambda: [rope_case("rope_06b", *((2, 1, 16) if small else (16, 8, 128)), True, size,
                           device, dtype)],
    ]
    for make in makers:
        for case in make():
            if not case.agree():
                raise RuntimeError(f"{case.name} differs from PyTorch's operations.")
            samples = 2 if small else 20
            rates = [case.bytes_moved / median_s(run, samples) for run in (case.engine, case.torch)]
            rows.append([case.name, *rates])
            if not small:
                r.value(case.name, rates[0], unit="byte/s")
                r.value(f"{case.name}_share", rates[0] / top, unit="",
                        note="of the copy limit of this run")
                r.value(f"{case.name}_torch", rates[1], unit="byte/s",
                        note="PyTorch's operations, the same bytes counted")
    r.table("elementwise", rows=rows, columns=[("operation", ""), ("engine", "byte/s"),
                                               ("torch", "byte/s")])


# ---------------------------------------------------------------- draws


def parameters(count: int, fields: dict[str, float], device: str) -> SamplingRows:
    def full(name: str, default: float, dtype: torch.dtype) -> Tensor:
        return torch.full((count,), fields.get(name, default), dtype=dtype, device=device)

    return SamplingRows(full("temperature", 0.8, torch.float32), full("top_k", 0, torch.int64),
                        full("top_p", 1.0, torch.float32), full("min_p", 0.0, torch.float32),
                        torch.arange(count, device=device), full("position", 77, torch.int64))


def draws(r: results.Recorder, small: bool, device: str, save: Callable[[], None]) -> None:
    """Seconds of one draw of all rows, and how many tokens the two ways agree on."""
    table: list[list[object]] = []
    for count, vocab in ((3, 300),) if small else DRAWS:
        for shape, spread in SPREADS.items():
            logits = [torch.randn(count, vocab, device=device) * spread for _ in range(2)]
            out = torch.empty(count, dtype=torch.int64, device=device)
            for name, (variant, fields) in FILTERS.items():
                rows = parameters(count, fields, device)
                seconds = draw_times(logits, rows, variant, out, small)
                same = float((sampler.sample(logits[0], rows, variant)
                              == sampling.sample(logits[0], rows)).float().mean())
                if same < 1 - 1.5 / count:  # a near-tie may fall either way
                    raise RuntimeError(f"{name}, {shape}: only {same:.1%} of the tokens agree.")
                table.append([count, vocab, shape, name, *seconds, same])
                if not small:
                    key = f"sample_{count}_{name}_{shape}"
                    r.value(key, seconds[0], unit="s")
                    r.value(f"{key}_torch", seconds[1], unit="s", note="with sorts, eagerly")
            r.table("draws", rows=table, columns=[
                ("rows", ""), ("vocabulary", ""), ("logits", ""), ("filter", ""), ("engine", "s"),
                ("torch", "s"), ("same tokens", "")])
            save()


def draw_times(logits: list[Tensor], rows: SamplingRows, variant: str, out: Tensor,
               small: bool) -> tuple[float, float]:
    return (median_s(lambda i: sampler.sample(logits[i], rows, variant, out=out),
                     2 if small else 12),
            median_s(lambda i: sampling.sample(logits[i], rows), 2 if small else 3, capture=False))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elementwise_kernels",
                                     description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, interpreted on a CPU")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    device = "cpu" if INTERPRETED else "cuda"
    torch.manual_seed(0)
    with results.record("elementwise_kernels", argv=argv, out=args.out, device=device) as r:
        def save() -> None:
            partial.save(r, argv, args.out, device)

        elementwise(r, args.smoke, device)
        save()
        draws(r, args.smoke, device, save)


if __name__ == "__main__":
    main()
