"""Attention step by step: the naive way, by hand, the lab's kernels, the engine's, PyTorch's.

    python -m benchmarks.attention_steps [--smoke] [--out DIR]

Prefill: one causal request of 32 heads of dimension 128 in bf16 over its length: time, and the
memory it takes beyond inputs and result. Then the engine's kernel with one decision taken back.
Decode: one new token a request over a paged cache, blocks in random order: time by the number of
splits, alone and in a batch; whether a request's bits depend on its batch. Every kernel is compared
with PyTorch's attention before it is timed. Times are those of launches inside a CUDA graph, over
copies of the inputs that together exceed the L2 cache. With --smoke tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

if "--smoke" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.limits import samples_s
from infero import results
from infero.kernels import decode, flash
from infero.kernels.steps import attention as steps
from infero.kernels.steps import attention_io

HEADS, KV_HEADS, DIM, BLOCK = 32, 8, 128, 16
Make = Callable[[int], object]


@dataclass
class Setting:
    """Where it runs, and how large it is."""

    device: str
    dtype: torch.dtype
    heads: int
    kv_heads: int
    dim: int
    samples: int


def timed(run: Make, copies: int, s: Setting) -> float:
    """Median seconds of one call run(i), i below `copies`, all copies in one captured graph."""
    if s.device == "cpu":
        return statistics.median(samples_s(lambda i: run(i % copies), "cpu", s.samples, 1))
    for i in range(copies):
        run(i)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a capture cannot take back what earlier calls left
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(copies):
            run(i)
    times = samples_s(lambda _: graph.replay(), s.device, s.samples, warmup=2)
    return statistics.median(times) / copies


def compared(got: Tensor, want: Tensor, what: str) -> None:
    """Raise unless two results agree up to the rounding of 16 bits."""
    error = float(((got.float() - want.float()).abs() / (1 + want.float().abs())).max())
    if not error < 5e-2:
        raise RuntimeError(f"{what} is off by {error}: it would be timed for the wrong work.")


# ---------------------------------------------------------------- prefill


def naive(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Scores written; masked; softmax; times values. Four kernels: q, k, v [n, heads, dim]."""
    q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    scores = (q * scale) @ k.transpose(1, 2)
    scores.masked_fill_(HIDDEN[q.shape[1], q.device.type], -math.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1)


def hand(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`blockwise` for every head: the online softmax in PyTorch, without a mask."""
    return torch.stack([steps.blockwise(q[:, h], k[:, h], v[:, h], scale, 512)[0]
                        for h in range(q.shape[1])], 1).to(q.dtype)


def sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """PyTorch's own: FlashAttention-2 on a GPU."""
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)[0].transpose(
            0, 1)


def engine(q: Tensor, k: Tensor, v: Tensor, scale: float, config: flash.Config | None = None
           ) -> Tensor:
    """The engine's kernel over keys that lie side by side."""
    starts = STARTS[q.shape[0], q.device.type]
    return flash.dense(q, k, v, starts, starts, scale, longest_query=q.shape[0], config=config)


STARTS: dict[tuple[int, str], Tensor] = {}
HIDDEN: dict[tuple[int, str], Tensor] = {}  # what the causal mask hides, made outside the timing


def call(way: Callable[..., Tensor], made: Sequence[tuple[Tensor, ...]], scale: float,
         i: int) -> Tensor:
    return way(*made[i], scale)


def inputs(n: int, copies: int, s: Setting) -> list[tuple[Tensor, ...]]:
    """q, k and v, [n, heads, dim] each, `copies` times."""
    STARTS[n, s.device] = torch.tensor([0, n], dtype=torch.int32, device=s.device)
    HIDDEN.clear()
    HIDDEN[n, s.device] = torch.ones(n, n, dtype=torch.bool, device=s.device).triu(1)
    return [tuple(torch.randn(n, s.heads, s.dim, device=s.device).to(s.dtype) for _ in range(3))
            for _ in range(copies)]


def extra_bytes(run: Callable[[], Tensor], s: Setting) -> int:
    """Memory that a call takes at its peak beyond inputs and result."""
    if s.device == "cpu":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = run()
    torch.cuda.synchronize()
    return max(0, torch.cuda.max_memory_allocated() - before - out.nbytes)


def prefill(r: results.Recorder, s: Setting, lengths: Sequence[int]) -> None:
    ways: dict[str, Callable[..., Tensor]] = {
        "naive": naive, "steps": steps.flash, "engine": engine, "sdpa": sdpa}
    scale, rows, named = s.dim**-0.5, [], dict[tuple[str, int], float]()
    for n in lengths:
        copies = max(1, min(8, 2**14 // n)) if s.device != "cpu" else 1
        made = inputs(n, copies, s)
        want = call(sdpa, made, scale, 0)
        row: list[float] = [n]
        for name, way in ways.items():
            compared(call(way, made, scale, 0), want, f"{name} at {n}")
            taken = timed(partial(call, way, made, scale), copies, s)
            extra = extra_bytes(partial(call, way, made, scale, 0), s)
            row += [taken, extra]
            named[name, n] = taken
            if n == 4096 or (s.device == "cpu" and n == lengths[-1]):
                r.value(f"{name}_4096", taken, unit="s", note="one request of 4,096 tokens")
                r.value(f"{name}_4096_rate", work(n, s) / taken, unit="flop/s")
                r.value(f"{name}_4096_memory", extra, unit="byte",
                        note="at the peak, beyond inputs and result")
        rows.append(row)
    columns = [("length", "")]
    for name in ways:
        columns += [(name, "s"), (f"{name}_memory", "byte")]
    r.table("prefill", columns=columns, rows=rows)
    n = 4096 if s.device != "cpu" else lengths[-1]
    r.value("naive_over_steps", named["naive", n] / named["steps", n], unit="")
    r.value("engine_over_steps", named["steps", n] / named["engine", n], unit="",
            note="time of the lab's kernel over the engine's")
    made = inputs(n, 1, s)
    r.value("hand_4096", timed(partial(call, hand, made, scale), 1, s), unit="s",
            note="blockwise in PyTorch, head by head, without a mask")


def work(n: int, s: Setting) -> float:
    """FLOPs of causal attention: two products over the lower half of the score matrix."""
    return 4 * s.heads * s.dim * n * n / 2


def configs(s: Setting) -> dict[str, flash.Config | None]:
    """The engine's kernel as chosen, and with one decision taken back; None: the lab's kernel."""
    if s.device == "cpu":
        return {"the lab's kernel": None, "as chosen": flash.Config(16, 16, 4, 1, 2)}
    best = flash.chosen(s.dim, s.dtype, False, torch.device(s.device))
    plain = dataclasses.replace(best, copies="threads")
    return {"the lab's kernel": None,
            "no loads in flight": dataclasses.replace(plain, stages=1),
            "one head after the other": dataclasses.replace(plain, together=1),
            **({} if best == plain else {"threads copy the keys": plain}), "as chosen": best}


def variants(r: results.Recorder, s: Setting, n: int) -> None:
    """The engine's kernel with one decision taken back at a time."""
    tries = configs(s)
    copies = 4 if s.device != "cpu" else 1
    made, scale, rows = inputs(n, copies, s), s.dim**-0.5, []
    want = call(sdpa, made, scale, 0)
    for name, config in tries.items():
        way = partial(engine, config=config) if config else steps.flash
        compared(call(way, made, scale, 0), want, name)
        taken = timed(partial(call, way, made, scale), copies, s)
        rows.append([name, taken, work(n, s) / taken])
    r.table("variants", columns=[("kernel", ""), ("time", "s"), ("rate", "flop/s")], rows=rows)


# ---------------------------------------------------------------- decode

SPLITS = (1, 4, 16, 64)


@dataclass
class Paged:
    """One new token a request over a paged cache."""

    q: Tensor
    k: Tensor
    v: Tensor
    tables: Tensor
    contexts: Tensor

    @property
    def read_bytes(self) -> int:
        return self.k.nbytes + self.v.nbytes


def paged(requests: int, context: int, s: Setting) -> Paged:
    """A cache that holds these requests and nothing else, blocks in random order."""
    blocks = requests * context // BLOCK
    made = torch.randn(2, blocks * BLOCK, s.kv_heads, s.dim, device=s.device).to(s.dtype)
    order = torch.randperm(blocks, device=s.device).int().view(requests, -1)
    q = torch.randn(requests, s.heads, s.dim, device=s.device).to(s.dtype)
    return Paged(q, made[0], made[1], order.contiguous(),
                 torch.full((requests,), context, dtype=torch.int32, device=s.device))


def by_steps(p: Paged, scale: float, splits: int) -> Tensor:
    parts = steps.paged_decode(p.q, p.k, p.v, p.tables, p.contexts, BLOCK, scale, splits)
    return steps.combine(*parts)[0]


def by_engine(p: Paged, scale: float, splits: int, deterministic: bool = False) -> Tensor:
    return decode.attention(p.q, p.k, p.v, p.tables, p.contexts, BLOCK, scale, splits=splits,
                            deterministic=deterministic)


def gathered(p: Paged, scale: float) -> Tensor:
    """Blocks copied side by side, then PyTorch's attention: q [requests, heads, dim]."""
    requests, group = len(p.contexts), p.q.shape[1] // p.k.shape[1]
    keys, values = (t.view(-1, BLOCK, *t.shape[1:])[p.tables.long()].flatten(1, 2).transpose(1, 2)
                    for t in (p.k, p.v))
    q = p.q.view(requests, -1, group, p.q.shape[-1])
    return F.scaled_dot_product_attention(q, keys, values, scale=scale).reshape(p.q.shape)


def decoded(way: Callable[..., Tensor], made: Sequence[Paged], scale: float, *rest: int) -> Tensor:
    """`way` on copy i; i is the last of `rest`."""
    return way(made[rest[-1]], scale, *rest[:-1])


def decoding(r: results.Recorder, s: Setting, shapes: Sequence[tuple[int, int]],
             splits: Sequence[int]) -> None:
    scale, rows, engine_rows = s.dim**-0.5, list[list[float]](), list[list[float]]()
    one: dict[str, float] = {}
    for requests, context in shapes:
        copies = 4 if requests == 1 and s.device != "cpu" else 1
        made = [paged(requests, context, s) for _ in range(copies)]
        size = made[0].read_bytes
        want = gathered(made[0], scale)
        best: dict[str, tuple[float, int]] = {}
        name = f"decode_b{requests}"
        r.value(f"{name}_context", context, unit="token")
        for way, table in ((by_steps, rows), (by_engine, engine_rows)):
            by = way.__name__[3:]
            for n in splits:
                compared(way(made[0], scale, n), want, f"{by} with {n} splits")
                taken = timed(partial(decoded, way, made, scale, n), copies, s)
                table.append([requests, context, n, taken, size / taken])
                best[by] = min(best.get(by, (math.inf, 0)), (taken, n))
                if n == 1:
                    one[by] = taken
                    r.value(f"{name}_{by}_one_split", taken, unit="s")
                    r.value(f"{name}_{by}_one_split_bandwidth", size / taken, unit="byte/s")
        for by, (taken, n) in best.items():
            r.value(f"{name}_{by}", taken, unit="s", note="with the best number of splits")
            r.value(f"{name}_{by}_splits", n, unit="")
            r.value(f"{name}_{by}_bandwidth", size / taken, unit="byte/s")
        r.value(f"{name}_gain", one["steps"] / best["steps"][0], unit="",
                note="time of the lab's kernel with one split over the best")
        r.value(f"{name}_gathered", timed(partial(decoded, gathered, made, scale), copies, s),
                unit="s", note="blocks gathered, then PyTorch's attention")
    columns = [("requests", ""), ("context", ""), ("splits", ""), ("time", "s"),
               ("bandwidth", "byte/s")]
    r.table("splits", columns=columns, rows=rows)
    r.table("splits_engine", columns=columns, rows=engine_rows)


def again(p: Paged, scale: float, splits: int, fixed: bool, _: int) -> Tensor:
    return by_engine(p, scale, splits, fixed)


def invariance(r: results.Recorder, s: Setting, requests: int, context: int) -> None:
    """Share of a request's numbers whose bits change when others are in its batch."""
    p, scale = paged(requests, context, s), s.dim**-0.5
    alone = Paged(p.q[:1], p.k, p.v, p.tables[:1], p.contexts[:1])

    def splits(n: int) -> int:
        return decode.splits_for(n, s.kv_heads, context, s.device) if s.device != "cpu" else n

    for name, fixed in (("free", False), ("fixed", True)):
        one = by_engine(alone, scale, splits(1), fixed)
        many = by_engine(p, scale, splits(requests), fixed)[:1]
        r.value(f"bits_differ_{name}", float((one != many).float().mean()), unit="",
                note=f"{splits(1)} splits alone, {splits(requests)} among {requests}")
        taken = timed(partial(again, p, scale, splits(requests), fixed), 1, s)
        r.value(f"decode_{name}", taken, unit="s")
    r.value("splits_alone", splits(1), unit="")
    r.value("splits_batched", splits(requests), unit="")


# ---------------------------------------------------------------- compiling


def warm(number: int) -> None:
    """Compile one share of the kernels: the first call of each, on small inputs."""
    s, scale = Setting("cuda", torch.bfloat16, HEADS, KV_HEADS, DIM, 1), DIM**-0.5
    first = len(configs(s))
    if number < first:
        config = list(configs(s).values())[number]
        made = inputs(1024, 1, s)
        call(partial(engine, config=config) if config else steps.flash, made, scale, 0)
    else:
        way = (by_steps, by_engine)[(number - first) // len(SPLITS)]
        way(paged(1, 4096, s), scale, SPLITS[(number - first) % len(SPLITS)])
    torch.cuda.synchronize()


def warm_all(s: Setting) -> None:
    """Compile everything in processes of their own, side by side: it takes as long as one."""
    shares = len(configs(s)) + 2 * len(SPLITS)
    with multiprocessing.get_context("spawn").Pool(min(shares, os.cpu_count() or 1)) as pool:
        pool.map(warm, range(shares), chunksize=1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention_steps",
                                     description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    small = args.smoke
    s = (Setting("cpu", torch.float16, 4, 2, 16, 1) if small
         else Setting("cuda", torch.bfloat16, HEADS, KV_HEADS, DIM, 10))
    if not small:
        warm_all(s)
    with results.record("attention_steps", argv=argv, out=args.out, device=s.device) as r:
        prefill(r, s, [16, 40] if small else [1024, 2048, 4096, 8192, 16_384])
        variants(r, s, 40 if small else 4096)
        decoding(r, s, [(1, 64), (2, 32)] if small else [(1, 16_384), (32, 4096)],
                 [1, 2] if small else SPLITS)
        invariance(r, s, 2 if small else 32, 64 if small else 4096)
        n, width = 4096, 2
        naive_bytes = HEADS * attention_io.naive_traffic(n, n, DIM, width).total
        flash_bytes = HEADS * attention_io.flash_traffic(n, n, DIM, 128, 64, width).total
        r.value("naive_4096_traffic", naive_bytes, unit="byte", note="by formula")
        r.value("flash_4096_traffic", flash_bytes, unit="byte", note="by formula, tiles 128 by 64")


if __name__ == "__main__":
    main(sys.argv[1:])
