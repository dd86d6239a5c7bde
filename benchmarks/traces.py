"""Real profiler traces for chapter 3: five runs of a Qwen3-0.6B-shaped model, trimmed and zipped.

    python -m benchmarks.traces [--device cuda|cpu] [--smoke] [--out DIR]

    decode_eager   decode steps through infero.model.forward: the GPU waits for the host
    decode_graph   the same steps as one CUDA graph each: the GPU is fed
    prefill        2,048 tokens at once through infero.model.forward
    prefill_fused  8,192 tokens with fused attention and norms: the host runs ahead of the GPU
    decode_sync    decode_eager with a bug: each layer looks whether its output is finite

Each trace goes to OUT/DEVICE/traces/NAME.json.gz (`infero.trace` reads it, ui.perfetto.dev opens
it); traces.json holds what was counted in them, and the time of a step without the profiler. No
step asks the GPU for anything but in decode_sync. The runs
through infero.model.forward are checked to give the same logits.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gzip
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from benchmarks.roofline_sweep import angles, cache_views, config_of, step
from infero import bench, provenance, results, roofline, trace
from infero import model as engine
from infero.cache import contiguous

LIMIT_BYTES = 2**20
KEPT = ("stream", "correlation", "grid", "block", "registers per thread", "shared memory", "bytes",
        "memory bandwidth (GB/s)", "sort_index", "name", "labels")


class Steps:
    """Decode steps of one request, or its prefill, with every input made beforehand."""

    def __init__(self, model: engine.Model, context: int, new: int, count: int) -> None:
        self.model, self.new = model, new
        config, device = model.config, model.device
        self.cache = contiguous.allocate(config, 1, context + count * new, model.dtype, device)
        self.tokens = torch.randint(config.vocab_size, (context + count * new,), device=device)
        self.rows = torch.tensor([new - 1], device=device)
        self.batches = []
        for i in range(count):
            batch = contiguous.next_batch(self.cache, [context + i * new], [new])
            batch.block_tables = batch.block_tables.cpu()  # the host reads it: no copy back
            self.batches.append(batch)
        if context:
            first = contiguous.next_batch(self.cache, [0], [context])
            engine.forward(model, self.tokens[:context], first, self.cache, self.rows * 0)

    def __call__(self, i: int) -> Tensor:
        """Step i: float32 logits [1, vocab]."""
        batch = self.batches[i]
        start = batch.context_lens[0] - self.new
        tokens = self.tokens[start : start + self.new]
        return engine.forward(self.model, tokens, batch, self.cache, self.rows)


def fused_prefill(model: engine.Model, tokens: int) -> Callable[[int], Tensor]:
    """A prefill whose attention and norms are one kernel each (q and k norms left out)."""
    config, device = model.config, model.device
    per_token = roofline.kv_bytes_per_token(config) / 2
    pool = torch.empty(int(tokens * per_token), dtype=model.dtype, device=device)
    cache = cache_views(pool, config, 1, tokens)
    ids = torch.randint(config.vocab_size, (tokens,), device=device)
    cos, sin = angles(model, torch.arange(tokens, device=device))
    return lambda _: step(model, cache, ids, cos, sin, tokens)


def graphed(run: Callable[[], Tensor], device: str) -> Callable[[], Tensor]:
    """`run` captured as a CUDA graph; on a CPU, run itself."""
    if device == "cpu":
        return run
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


@contextmanager
def hidden_bug() -> Iterator[None]:
    """Every layer asks whether its output is finite: one wait for the GPU a layer."""
    block = engine.block

    def checked(*args: Any) -> Tensor:
        x = block(*args)
        if not bool(torch.isfinite(x).all()):
            raise FloatingPointError("a layer's output is not finite")
        return x

    engine.block = checked
    try:
        yield
    finally:
        engine.block = block


def trim(raw: dict[str, Any], flows: bool) -> dict[str, Any]:
    """A profiler's trace with what the book uses: times from 0, no stacks, few arguments."""
    events = raw["traceEvents"]
    zero = min(float(e["ts"]) for e in events if e.get("ph") == "X" and "ts" in e)
    kept = []
    for event in events:
        kind, phase = event.get("cat", ""), event.get("ph")
        flow = phase in ("s", "f", "t")
        if not (phase == "M" or (phase == "X" and kind != "Trace") or (flow and flows)):
            continue
        small = {k: event[k] for k in ("ph", "cat", "name", "pid", "tid", "id", "bp") if k in event}
        if phase != "M":
            small["ts"] = round(float(event["ts"]) - zero, 3)
        if "dur" in event:
            small["dur"] = round(float(event["dur"]), 3)
        args = {k: v for k, v in event.get("args", {}).items() if k in KEPT}
        if args:
            small["args"] = args
        kept.append(small)
    return {"displayTimeUnit": "ms", "traceEvents": kept}


def write_trace(profiler: Any, path: Path) -> int:
    """Trim and zip a profiler's trace; its size in bytes. The arrows go if it is too large."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.json"
        profiler.export_chrome_trace(str(whole))
        raw = json.loads(whole.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    for flows in (True, False):
        text = json.dumps(trim(raw, flows), separators=(",", ":"))
        packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)
        if len(packed) <= LIMIT_BYTES:
            break
    else:
        raise RuntimeError(f"{path.name} has {len(packed)} bytes, more than {LIMIT_BYTES}: profile "
                           "fewer steps.")
    path.write_bytes(packed)
    return len(packed)


def profiled(run: Callable[[int], object], count: int, device: str, path: Path) -> int:
    """Profile run(0) … run(count - 1), each marked as a step; the trace's size in bytes."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    clock = bench.clock_of(device)
    for _ in range(2):  # the profiler's own first run is slow: throw it away
        with torch.profiler.profile(activities=activities) as profiler:
            clock.synchronize()
            for i in range(count):
                with record_function(f"step {i}"):
                    run(i)
            with record_function("wait for the GPU"):
                clock.synchronize()
    return write_trace(profiler, path)


def describe(r: results.Recorder, name: str, path: Path, steps: int) -> None:
    """Record what the trace shows."""
    found = trace.profile(path)
    marks = [m for m in found.marks if m.name.startswith("step ")]
    end = max(one.end_s for one in [*found.device, *found.marks])
    r.value(f"{name}_profiled_step", (end - marks[0].start_s) / steps, unit="s", n=steps,
            note="a step under the profiler, which slows the host")
    inside = [w for w in trace.waits(found)
              if any(m.start_s <= w.start_s < m.end_s for m in marks)]
    r.value(f"{name}_waits", len(inside) / steps, unit="",
            note="calls of one step in which the host stood still until the GPU was done")
    if not found.kernels:
        return
    r.value(f"{name}_busy", trace.busy_share(found.device), unit="",
            note="share of the time from first to last kernel in which the GPU worked")
    r.value(f"{name}_kernels", len(found.kernels) / steps, unit="", note="kernels a step")
    r.value(f"{name}_kernel_median", [k.duration_s for k in found.kernels], unit="s")
    r.value(f"{name}_kernel_total", sum(k.duration_s for k in found.kernels) / steps, unit="s",
            note="time of all kernels of a step, one after another")
    r.value(f"{name}_launches", len([c for c in found.calls if "Launch" in c.name]) / steps,
            unit="", note="launch calls a step")
    delays = trace.launch_delays_s(found)
    if delays:
        r.value(f"{name}_launch_delay", delays, unit="s", note="launch call to start of the kernel")
    gaps = trace.gaps_s(found.device)
    r.value(f"{name}_gap_median", statistics.median(gaps) if gaps else 0.0, unit="s", n=len(gaps))
    r.table(f"{name}_kernels", columns=[("kernel", ""), ("count", ""), ("total", "s"),
                                        ("share", "")],
            rows=[[k.name[:120], k.count, k.total_s, k.share]
                  for k in trace.kernel_table(found.kernels)[:12]])


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the files instead of results/")
    args = parser.parse_args(argv)
    device, small = args.device, args.smoke or args.device == "cpu"
    torch.manual_seed(0)

    tiny = engine.ModelConfig("qwen3", 512, 64, 96, 2, 4, 2, 16, max_context=512, qk_norm=True,
                              tie_embeddings=True)
    shape = roofline.MODELS["qwen3-0.6b"]
    config = tiny if small else dataclasses.replace(config_of(shape), qk_norm=shape.qk_norm)
    context, prompt, n = (16, 32, 3) if small else (512, 2048, 30)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = engine.random_model(config, dtype=dtype, device=device)
    decode, prefill = Steps(model, context, 1, 4), Steps(model, 0, prompt, 1)
    clock = bench.clock_of(device)
    folder = Path(args.out) if args.out else results.root()
    folder = folder / provenance.device_info(device)["slug"] / "traces"

    eager = decode(0).clone()
    graph = graphed(lambda: decode(0), device)
    with hidden_bug():
        checked = decode(0).clone()
    whole = Steps(model, 0, context + 1, 1)
    whole.tokens = decode.tokens
    size = float(eager.abs().max())
    for name, got, bound in (("graph", graph(), 1e-2), ("bug", checked, 1e-2),
                             ("prefill", whole(0), 0.1)):
        error = float((got - eager).abs().max()) / size
        if error > bound:
            raise RuntimeError(f"The logits of {name} are off from the eager step's by {error:.1%}")

    runs: dict[str, tuple[Callable[[int], object], int]] = {
        "decode_eager": (decode, 2), "decode_graph": (lambda _: graph(), 4),
        "prefill": (prefill, 1), "decode_sync": (decode, 2),
        "prefill_fused": (fused_prefill(model, 32 if small else 8192), 2),
    }
    with results.record("traces", argv=argv, out=args.out, device=device) as r:
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(n):  # in turns, so that a slow moment of the host hits all alike
            for name, (run, _steps) in runs.items():
                with hidden_bug() if name == "decode_sync" else contextlib.nullcontext():
                    samples[name] += bench.time_it(functools.partial(run, 0), clock, 1, 1)
        for name, (run, steps) in runs.items():
            r.value(f"{name}_step", samples[name], unit="s",
                    note="one step, launch to completion, without the profiler; taken in turns")
            path = folder / f"{name}.json.gz"
            with hidden_bug() if name == "decode_sync" else contextlib.nullcontext():
                packed = profiled(run, steps, device, path)
            r.value(f"{name}_bytes", packed, unit="byte", note="size of the zipped trace")
            r.value(f"{name}_steps", steps, unit="", note="steps in the trace")
            describe(r, name, path, steps)
            step_ms = 1e3 * statistics.median(samples[name])
            print(f"{name}: {packed / 1e3:.0f} kB, {step_ms:.2f} ms a step", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
