"""What a launch costs, and what a decode step is made of: one kernel, a graph, a whole model.

    python -m benchmarks.launches [--shape 0.6b 8b] [--ways torch fused …] [--device cuda|cpu]
                                  [--smoke] [--out DIR]

Part one launches kernels that do nothing. Part two runs one decode step (one request, 192 tokens of
context, random bf16 weights of real shapes) in every way the engine knows, launched one by one and
as a CUDA graph, and counts kernels and their time with the profiler. Chapter 16 and Lab 16 quote
the results.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.chapter01 import SMOKE
from infero import bench_throughput, graphs, kernels, lanes, results
from infero import model as model_module
from infero.cache import kv
from infero.kernels.language import tl, triton
from infero.model import Batch, Model, random_model

NAMES = {"0.6b": "qwen3_06b", "8b": "llama3_8b"}
CONTEXT, BLOCK = 192, 16
CHAIN = 200  # launches in a row that are timed


# ---------------------------------------------------------------- kernels that do nothing


@triton.jit
def touch(x, PDL: tl.constexpr):
    """Read one number and write it back, after the kernel before if PDL."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    at = x + tl.program_id(0)
    tl.store(at, tl.load(at) + 1)


def host_s(run: Callable[[], object], count: int, samples: int = 15) -> list[float]:
    """Seconds of the host for one call: `count` calls in a row, the device free beforehand."""
    found = []
    for i in range(samples + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            run()
        took = (time.perf_counter() - start) / count
        torch.cuda.synchronize()
        if i >= 2:
            found.append(took)
    return found


def wall_s(run: Callable[[], object], count: int, samples: int = 9) -> list[float]:
    """Seconds for one call until the device has done it, `count` calls in a row."""
    found = []
    for i in range(samples + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            run()
        torch.cuda.synchronize()
        if i >= 2:
            found.append((time.perf_counter() - start) / count)
    return found


def recorded(run: Callable[[], object]) -> Any:
    """A CUDA graph of what `run` launches; it has run once before."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def repeated(run: Callable[[], object]) -> None:
    for _ in range(5 * CHAIN):
        run()


def single(r: results.Recorder) -> None:
    """Launches from Python by kind, empty kernels in a row, and in a graph."""
    x = torch.zeros(64, device="cuda")
    a, w = (torch.randn(s, 64, device="cuda", dtype=torch.bfloat16) for s in (1, 64))

    def torch_op() -> None:
        x.add_(1.0)

    def triton_op() -> None:
        touch[(1,)](x, False, num_warps=1)

    rows = []
    for key, words, run in (("torch_op", "x.add_(1) on 64 numbers", torch_op),
                            ("torch_linear", "F.linear of one small row",
                             lambda: torch.nn.functional.linear(a, w)),
                            ("triton", "a Triton kernel with one argument", triton_op)):
        cost = r.value(f"launch_{key}", host_s(run, CHAIN), unit="s", note=f"host, {words}")
        wall = r.value(f"wall_{key}", wall_s(run, 5 * CHAIN), unit="s",
                       note=f"until done, {5 * CHAIN} in a row, {words}")
        rows.append([words, cost, wall])
    many = recorded(lambda: repeated(triton_op))
    few = recorded(triton_op)
    start = r.value("launch_graph", host_s(few.replay, CHAIN), unit="s",
                    note="host, replay of a graph of one kernel")
    rows.append(["replay of a graph of one kernel", start, wall_s(few.replay, 5 * CHAIN)[0]])
    r.value("launch_graph_1000", host_s(many.replay, 3), unit="s",
            note=f"host, replay of a graph of {5 * CHAIN} kernels")
    node = [s / (5 * CHAIN) for s in wall_s(many.replay, 3)]
    r.value("graph_node", node, unit="s", note="a kernel that does nothing, inside a graph")
    rows.append([f"one of {5 * CHAIN} kernels of a graph", None, statistics.median(node)])
    if torch.cuda.get_device_capability() >= (9, 0):
        def dependent() -> None:
            touch[(1,)](x, True, num_warps=1, launch_pdl=True)

        chain = recorded(lambda: repeated(dependent))
        node = [s / (5 * CHAIN) for s in wall_s(chain.replay, 3)]
        r.value("graph_node_pdl", node, unit="s",
                note="the same with programmatic dependent launch")
        rows.append(["the same with programmatic dependent launch", None,
                     statistics.median(node)])
    r.table("kinds", [("launch", ""), ("host", "s"), ("wall", "s")], rows)

    def waited() -> None:
        torch_op()
        torch.cuda.synchronize()

    r.value("sync", host_s(waited, 20), unit="s", note="host, one launch and waiting for it")


# ---------------------------------------------------------------- a decode step, in every way


@dataclass
class Decode:
    """One request in the middle of its answer: everything a step reads, on the device."""

    model: Model
    cache: kv.KVCache
    ids: Tensor
    table: Tensor

    def batch(self) -> Batch:
        """A new batch, as the engine makes one each step when nothing is captured."""
        device, position = self.model.device, CONTEXT - 1
        positions = torch.tensor([position]).to(device, non_blocking=True)
        slots = torch.tensor([position]).to(device, non_blocking=True)
        return Batch(positions, slots, self.table, BLOCK, [1], [CONTEXT])

    def plain(self, batch: Batch) -> Tensor:
        return model_module.forward(self.model, self.ids, batch, self.cache).argmax(-1)

    def fused(self, batch: Batch) -> Tensor:
        from infero.kernels import forward

        return forward.forward(self.model, self.ids, batch, self.cache).argmax(-1)

    def compiled(self, batch: Batch) -> Tensor:
        from infero.kernels import compiled

        return compiled.forward(self.model, self.ids, batch, self.cache).argmax(-1)


def decode(model: Model) -> Decode:
    cache = kv.empty(model.config, CONTEXT // BLOCK + 1, BLOCK, model.dtype, model.device)
    cache.k.normal_()
    cache.v.normal_()
    table = torch.arange(CONTEXT // BLOCK, device=model.device)[None]
    return Decode(model, cache, torch.tensor([7], device=model.device), table)


# name -> (words, options, method of Decode)
WAYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "torch": ("PyTorch", {"kernels": "torch", "fuse": False}, "plain"),
    "unfused": ("Triton, one kernel an operation", {"fuse": False}, "plain"),
    "fused": ("Triton, six a layer", {}, "fused"),
    "compiled": ("torch.compile", {}, "compiled"),
}


def profiled(run: Callable[[], object]) -> tuple[int, float]:
    """How many kernels `run` starts, and the seconds they run altogether; the median of three."""
    from torch.profiler import ProfilerActivity, profile

    found = []
    for _ in range(3):
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            run()
            torch.cuda.synchronize()
        events = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        found.append((len(events), sum(e.device_time for e in events) * 1e-6))
    return sorted(found)[1]


def one_way(r: results.Recorder, name: str, way: str, state: Decode, rows: list[list[Any]]) -> None:
    """Time a step launched kernel by kernel, and as a graph where it can be captured."""
    words, options, method = WAYS[way]
    with kernels.using(**options):
        run = getattr(state, method)
        begun = time.perf_counter()
        want = run(state.batch()).item()
        first = time.perf_counter() - begun
        if way == "compiled":
            r.value(f"{name}_compile", first, unit="s", note="the first step, compiler included")
        step = r.value(f"{name}_{way}", wall_s(lambda: run(state.batch()), 10, 5), unit="s",
                       note=f"a decode step, {words}")
        count, busy = profiled(lambda: run(state.batch()))
        note(r, name, way, count, busy)
        r.value(f"{name}_{way}_each", step / count, unit="s", note="the step over its launches")
        rows.append([words, "one by one", count, step, busy, 1 / step])
        if way == "torch":  # its attention reads lengths on the host
            return
        fixed = state.batch()
        run(fixed)  # works out the layout, outside the graph
        kept: list[Tensor] = []

        def keep() -> None:
            kept[:] = [run(fixed)]

        graph = recorded(keep)
        graph.replay()
        if kept[0].item() != want:
            raise RuntimeError(f"{name}, {way}: the graph draws {kept[0].item()}, the launched "
                               f"step {want}: find the mistake first.")
        step = r.value(f"{name}_{way}_graph", wall_s(graph.replay, 20, 7), unit="s",
                       note=f"a decode step as a CUDA graph, {words}")
        count, busy = profiled(graph.replay)
        note(r, name, f"{way}_graph", count, busy)
        rows.append([words, "graph", count, step, busy, 1 / step])


def note(r: results.Recorder, name: str, way: str, count: int, busy: float) -> None:
    r.value(f"{name}_{way}_launches", count, unit="", note="kernels and copies on the device")
    r.value(f"{name}_{way}_busy", busy, unit="s", note="sum of the kernels' times")


def steps(r: results.Recorder, name: str, model: Model, ways: Sequence[str]) -> None:
    """Every way; one that fails is named and left out."""
    rows: list[list[Any]] = []
    state = decode(model)
    for way in ways:
        begun = time.perf_counter()
        try:
            one_way(r, name, way, state, rows)
        except Exception as problem:  # the others are worth having
            print(f"{name}, {way}: {type(problem).__name__}: {problem}"[:600], file=sys.stderr)
        torch.cuda.synchronize()
        print(f"{name}, {way}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    r.table(name, [("kernels", ""), ("launched", ""), ("launches", ""), ("step", "s"),
                   ("busy", "s"), ("rate", "token/s")], rows)
    for row in rows:
        print(f"  {row[0]:32} {row[1]:10} {row[2]:4} launches {1e3 * row[3]:7.3f} ms  "
              f"busy {1e3 * row[4]:7.3f} ms  {row[5]:7.1f} tok/s", file=sys.stderr)
    if {f"{name}_fused_busy", "launch_triton", "graph_node"} <= set(r.values):
        count = graphs.launches(model.config)
        costs = lanes.Costs(*(r.values[key]["value"] for key in (
            "launch_triton", "launch_graph", "graph_node")))
        said = lanes.predict(count, r.values[f"{name}_fused_busy"]["value"], costs)
        r.value(f"{name}_predicted_eager", said.eager_s, unit="s", note="by infero.lanes")
        r.value(f"{name}_predicted_graph", said.graph_s, unit="s", note="by infero.lanes")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launches",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--shape", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS),
                        help="the compiled step takes half a minute, nearly all of it compiling")
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        parser.error("launches are a matter of GPUs: run it on a machine with one.")
    with results.record("launches", argv=argv, out=args.out, device=args.device) as r:
        single(r)
        for key, value in r.values.items():
            print(f"  {key:24} {1e6 * value['value']:8.2f} µs  {value['note']}", file=sys.stderr)
        for shape in args.shape[: 1 if args.smoke else None]:
            name = NAMES[shape]
            model = (random_model(SMOKE, dtype=torch.bfloat16, device="cuda") if args.smoke
                     else bench_throughput.random_shape(shape, "bfloat16", "cuda"))
            steps(r, name, model, [way for way in args.ways if shape != "8b" or way != "unfused"])
            del model
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
