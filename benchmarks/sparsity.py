"""What zeros buy: products with half of the weights zero on the 8B shapes, and whole engines.

    python -m benchmarks.sparsity [--only products engine] [--smoke] [--out DIR]

The same product in five ways: dense; dense with every other weight zero at random, which nothing
skips; the same zeros in PyTorch's compressed rows (CSR); and 2:4 through the sparse tensor cores,
by cuSPARSELt and by CUTLASS. Launches follow one another over copies of the weight that exceed the
L2 cache, in one CUDA graph where the library allows it. Each product is compared with the dense one
of the same zeros. Then decoding and a prefill of an 8B model through the engine: dense, dense with
zeros, 2:4, a quarter of the layers dropped, half of the neurons dropped. Chapter 6 quotes the
results. --smoke: tiny sizes, on a CPU too.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import partial
from benchmarks.chapter01 import SMOKE
from benchmarks.limits import read_samples, samples_s
from infero import bench_limits, bench_throughput, results
from infero.compress import magnitude, semi_structured, structured
from infero.llm import LLM
from infero.model import Model, random_model
from infero.sampling import SamplingParams

SHAPES = (("qkv", 6144, 4096), ("o", 4096, 4096), ("gate_up", 28672, 4096), ("down", 4096, 14336))
TOKENS = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096)
CSR_TOKENS = (1, 64)  # beyond these it takes seconds
ROTATED = 200 << 20  # bytes of weights that a timed run goes through at least
WAYS = ("dense", "zeros", "csr", "cusparselt", "cutlass")
GiB = 2**30
PARTS = ("products", "engine")


# ---------------------------------------------------------------- products


def weights_of(out: int, inputs: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """A random weight, the same with half of it zero anywhere, and with two of every four zero."""
    weight = (torch.randn(out, inputs, device=device) * inputs**-0.5).bfloat16()
    anywhere = weight * (torch.rand(out, inputs, device=device) < 0.5)
    return weight, anywhere, magnitude.prune(weight, pattern=(2, 4))


def product(way: str, weights: tuple[Tensor, Tensor, Tensor]
            ) -> tuple[Callable[[Tensor], Tensor], Tensor, int] | None:
    """(the product, the weight it stands for, bytes stored), or None where it does not exist."""
    dense, anywhere, sparse = weights
    if way in ("dense", "zeros"):
        weight = (dense if way == "dense" else anywhere).clone()
        return lambda x: F.linear(x, weight), weight, weight.nbytes
    if way == "csr":
        return compressed_rows(anywhere)
    if dense.is_cuda:
        found = semi_structured.native(sparse, way)
        return None if found is None else (found.multiply, sparse, found.nbytes)
    stored = semi_structured.SparseWeight(*semi_structured.compress(sparse))
    return (stored.multiply, sparse, stored.nbytes) if way == "cutlass" else None


def compressed_rows(weight: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, int]:
    """The product with compressed rows: in bf16, or in float32 where the library has no other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the support is in beta
        wide = weight.float().to_sparse_csr()
        parts = (wide.crow_indices().int(), wide.col_indices().int())
        rows = torch.sparse_csr_tensor(*parts, wide.values().to(weight.dtype), wide.shape)
        try:
            rows @ weight.new_zeros(weight.shape[1], 1)
        except RuntimeError:
            rows = torch.sparse_csr_tensor(*parts, wide.values(), wide.shape)
    size = sum(t.nbytes for t in (*parts, rows.values()))
    return lambda x: (rows @ x.t().to(rows.dtype)).t(), weight, size


def timed(calls: Sequence[Callable[[], object]], device: str, samples: int) -> float:
    """Seconds of one call: one after another, in a CUDA graph if they can be captured."""
    if device == "cpu":
        return statistics.median(samples_s(lambda _: calls[0](), "cpu", samples, 1))
    run: Callable[[], object] = lambda: [call() for call in calls]  # noqa: E731
    try:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            run()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                run()
        run = graph.replay
    except RuntimeError:  # a library that asks the host in between
        torch.cuda.synchronize()
    times = samples_s(lambda _: run(), "cuda", samples, warmup=2)
    return statistics.median(times) / len(calls)


def products(r: results.Recorder, device: str, smoke: bool,
             save: Callable[[], None] = lambda: None) -> None:
    """Tables `products` and `bytes`; values WAY_NAME_mM and gain_NAME_mM."""
    shapes = (("qkv", 96, 64), ("down", 64, 128)) if smoke else SHAPES
    tokens = (1, 8) if smoke else TOKENS
    rows, sizes = list[tuple[str, str, int, float]](), dict[str, int]()
    for name, out, inputs in shapes:
        count = 1 if smoke else max(2, min(6, -(-ROTATED // (out * inputs * 2))))
        made = [weights_of(out, inputs, device) for _ in range(count)]
        for way in WAYS:
            several = [product(way, weights) for weights in made[: 1 if way == "csr" else count]]
            ready = [one for one in several if one is not None]
            if not ready:
                print(f"{name}: no {way} here", file=sys.stderr)
                continue
            sizes[way] = sizes.get(way, 0) + ready[0][2]
            for m in tokens if way != "csr" or smoke else CSR_TOKENS:
                x = torch.randn(m, inputs, device=device).bfloat16()
                try:
                    compare(ready[0][0](x), F.linear(x, ready[0][1]), f"{name} {way} M={m}",
                            0.05 if way == "csr" else 0.02)  # CSR products add in bfloat16
                    seconds = timed([lambda f=f, x=x: f(x) for f, _, _ in ready], device,
                                    3 if smoke else 5 if way == "csr" else 9)
                except (RuntimeError, NotImplementedError) as problem:
                    if "is off by" in str(problem) and way != "csr":
                        raise
                    print(f"{name} {way} M={m}: {problem}", file=sys.stderr)
                    continue
                rows.append((name, way, m, seconds))
                r.value(f"{way}_{name}_m{m}", seconds, unit="s", n=9)
            del several, ready
        del made
        released(device)
        summarised(r, tokens, rows, sizes)
        save()
    if device == "cuda":
        r.value("read_bandwidth", read_samples(device, GiB, 9)[0], unit="byte/s",
                note="measured in this run")


def summarised(r: results.Recorder, tokens: Sequence[int],
               rows: Sequence[tuple[str, str, int, float]], sizes: dict[str, int]) -> None:
    """The tables of what was measured so far, and the gain of 2:4 over dense."""
    seconds_of: dict[tuple[str, str, int], float] = {(name, way, m): s for name, way, m, s in rows}
    best = []
    for name in dict.fromkeys(row[0] for row in rows):
        for m in tokens:
            found = [seconds_of[name, way, m] for way in ("cusparselt", "cutlass")
                     if (name, way, m) in seconds_of]
            if found:
                dense = seconds_of[name, "dense", m]
                best.append([name, m, dense, seconds_of[name, "zeros", m], min(found),
                             dense / min(found)])
                r.value(f"gain_{name}_m{m}", dense / min(found), unit="",
                        note="dense time over the better library's for 2:4")
    r.table("products", [("matrix", ""), ("way", ""), ("tokens", ""), ("time", "s")], rows)
    r.table("gain", [("matrix", ""), ("tokens", ""), ("dense", "s"), ("zeros", "s"),
                     ("two_of_four", "s"), ("gain", "")], best)
    r.table("bytes", [("way", ""), ("bytes", "byte")], [[way, size] for way, size in sizes.items()])


def compare(got: Tensor, want: Tensor, what: str, most: float) -> None:
    error = float((got.float() - want.float()).norm() / want.float().norm())
    if not error < most:
        raise RuntimeError(f"{what} is off by {error:.1%} of its norm.")


# ---------------------------------------------------------------- whole engines


def with_zeros(model: Model, two_of_four: bool) -> Model:
    """Half of every layer's matrices zero, layer by layer; stored as 2:4 if asked."""
    layers = []
    for layer in model.layers:
        new: dict[str, Any] = {}
        for name in semi_structured.MATRICES:
            weight = getattr(layer, name)
            if two_of_four:
                new[name] = semi_structured.sparse(magnitude.prune(weight, pattern=(2, 4)))
            else:
                new[name] = weight * (torch.rand_like(weight, dtype=torch.bfloat16) < 0.5)
        layers.append(replace(layer, **new))
    return replace(model, layers=layers)


def narrower(model: Model) -> Model:
    """The same model with the first half of its neurons."""
    inter = model.config.intermediate_size // 2
    kept = torch.arange(inter, device=model.device)
    layers = [structured.keep_neurons(layer, kept) for layer in model.layers]
    return replace(model, layers=layers, config=replace(model.config, intermediate_size=inter))


def engines(r: results.Recorder, device: str, smoke: bool,
            save: Callable[[], None] = lambda: None) -> list[str]:
    """Values NAME_rate, _prefill and _bytes of each kind of model; returns what failed."""
    model = (random_model(SMOKE, dtype=torch.bfloat16, device=device) if smoke
             else bench_throughput.random_shape("8b", "bfloat16", device))
    few = list(range(model.config.num_layers * 3 // 4))
    kinds: dict[str, Callable[[], Model]] = {
        "dense": lambda: model,
        "two_of_four": lambda: with_zeros(model, two_of_four=True),
        "fewer_layers": lambda: structured.keep_layers(model, few),
        "fewer_neurons": lambda: narrower(model),
        "zeros": lambda: with_zeros(model, two_of_four=False),
    }
    rows, failed = list[list[object]](), list[str]()
    for name, make in kinds.items():
        try:
            try:
                row = one_engine(r, name, make(), smoke)
            except RuntimeError:  # a library's product that cannot be captured
                if name != "two_of_four" or device == "cpu":
                    raise
                traceback.print_exc()
                released(device)
                row = one_engine(r, name, make(), smoke, cuda_graphs=False)
        except Exception:  # one kind must not cost the others
            traceback.print_exc()
            failed.append(name)
        else:
            rows.append([name, *row])
            r.table("engine", [("model", ""), ("rate", "token/s"), ("prefill", "s"),
                               ("bytes", "byte")], rows)
        save()
        released(device)
    return failed


def one_engine(r: results.Recorder, name: str, model: Model, smoke: bool,
               cuda_graphs: bool = True) -> list[float]:
    prompt_len, new, long = (6, 6, 24) if smoke else (128, 128, 2048)
    draw, vocab = random.Random(0), model.config.vocab_size
    llm = LLM(model, prefix_caching=False, max_num_seqs=1, max_model_len=long + 16,
              max_num_batched_tokens=long, cuda_graphs=cuda_graphs)
    assert llm.engine is not None
    prompt = [draw.randrange(vocab) for _ in range(prompt_len)]
    seconds = bench_throughput.alone(llm.engine, prompt, new, 2 if smoke else 3)
    rate = r.value(f"{name}_rate", [(new - 1) / s for s in seconds], unit="token/s",
                   note=f"one request, prompt {prompt_len}, {new} new tokens, decoding only"
                   f"{'' if cuda_graphs else ', without CUDA graphs'}")
    first, times = [draw.randrange(vocab) for _ in range(long)], []
    for _ in range(3 if smoke else 6):
        llm.engine.reset()
        start = time.perf_counter()
        llm.generate(first, SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))
        times.append(time.perf_counter() - start)
    prefill = r.value(f"{name}_prefill", times[1:], unit="s",
                      note=f"from a prompt of {long} tokens to its first token")
    size = r.value(f"{name}_bytes", bench_limits.weights_read(llm.engine.model), unit="byte",
                   note="weights read for one token")
    print(f"  {name:<14} {rate:8,.1f} tokens/s  prefill {1e3 * prefill:7.1f} ms  "
          f"{size / 1e9:6.2f} GB", file=sys.stderr, flush=True)
    return [rate, prefill, size]


def released(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparsity",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    if args.device == "cpu" and not args.smoke:
        parser.error("there is no GPU here: --smoke tries the program, and Lab 6 measures what "
                     "zeros buy on a CPU.")
    torch.manual_seed(0)
    failed: list[str] = []
    with torch.no_grad(), results.record("sparsity", argv=argv, out=args.out,
                                                device=args.device) as r:
        def save() -> None:
            partial.save(r, argv, args.out, args.device)

        if "products" in args.only:
            products(r, args.device, args.smoke, save)
            save()
        if "engine" in args.only:
            failed = engines(r, args.device, args.smoke, save)
    if failed:
        print(f"These failed, find out why: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
