"""SmolLM2 on this CPU in every number format: decoding alone, prefill, and eight at once.

    python -m benchmarks.cpu_decode [--model PATH] [--runs 5] [--new 128] [--smoke] [--out DIR]

One request: prompt 64, greedy, no end of sequence, the rate from the first new token to the last,
through the engine with its defaults. "gguf" runs the file's own matrices as they are stored (Q4_1,
embedding and head Q8_0); "int4" is rounded to nearest in symmetric groups of 64, "int8" in one
scale a row. The formats take turns, so that a busy moment meets all alike, and so do transformers
(bf16, dynamic cache) and llama.cpp (the same file) where they are installed. The read limit is
measured in this run. Bytes are the weights as they lie in memory, scales included, and the cache.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import infero
from benchmarks import partial
from benchmarks.chapter01 import SMOKE
from infero import bench_limits, peers, peers_speed, results
from infero.engine import Engine, EngineConfig
from infero.kernels import cpu_products, formats
from infero.loading import source
from infero.model import Model, random_model
from infero.sampling import SamplingParams

KINDS = {"fp32": "float32", "bf16": "bfloat16", "int8": "bfloat16", "w8a8": "bfloat16",
         "int4": "bfloat16", "gguf": "bfloat16"}
AT_ONCE = 8


@dataclass(frozen=True)
class Sizes:
    prompt: int = 64
    new: int = 128
    long: int = 512  # tokens of the prompt whose prefill is timed
    batch_new: int = 32


def model_of(kind: str, path: str | None, base: Callable[[str], Model]) -> Model:
    """The model in one of the formats, nothing kept of what it was made from."""
    if kind == "gguf":
        return infero.load(path, device="cpu", keep_quantized=True)
    model = base(KINDS[kind])
    if kind in ("int8", "int4", "w8a8"):
        model = formats.quantize_model(model, kind, group=64)  # type: ignore[arg-type]
        return cpu_products.adopt_model(model)
    return model


def engine_of(model: Model, sizes: Sizes) -> Engine:
    return Engine(model, EngineConfig(
        max_num_seqs=AT_ONCE, max_num_batched_tokens=max(sizes.long, AT_ONCE),
        max_model_len=max(sizes.long, sizes.prompt) + sizes.new + 1, prefix_caching=False,
        kv_memory_bytes=256 << 20))


def decode_s(engine: Engine, prompts: Sequence[list[int]], new: int) -> tuple[float, float]:
    """(seconds to the first token of the last request, seconds from there to the last token)."""
    engine.reset()
    params = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
    start = time.perf_counter()
    for i, prompt in enumerate(prompts):
        engine.add_request(str(i), prompt, params)
    seen: set[str] = set()
    first = start
    while engine.has_unfinished():
        for chunk in engine.step():
            if chunk.id not in seen:
                seen.add(chunk.id)
                first = time.perf_counter()
    return first - start, time.perf_counter() - first


def llama_cpp_s(path: str, prompt: list[int], new: int) -> Callable[[], float] | None:
    """A run of llama.cpp on the file: seconds from its first new token to its last."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    import llama_cpp

    llama: Any = llama_cpp.Llama(path, n_ctx=1024, n_threads=torch.get_num_threads(),
                                 verbose=False)

    def run() -> float:
        llama.reset()
        times = []
        for _ in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
            times.append(time.perf_counter())
            if len(times) == new:
                break
        return times[-1] - times[0]

    return run


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_decode",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a .gguf file (default: SmolLM2)")
    parser.add_argument("--only", nargs="+", choices=list(KINDS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--new", type=int, default=Sizes.new)
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    sizes = Sizes(8, 6, 24, 4) if args.smoke else Sizes(new=args.new)
    runs = 2 if args.smoke else args.runs
    kinds = [kind for kind in KINDS if not args.only or kind in args.only]
    if args.smoke:
        kinds = [kind for kind in kinds if kind != "gguf"]  # a tiny random model has no file

    def base(dtype: str) -> Model:
        if args.smoke:
            return random_model(SMOKE, dtype=getattr(torch, dtype))
        return infero.load(args.model, dtype=dtype, device="cpu")

    with results.record("cpu_decode", argv=argv, out=args.out, device="cpu") as r:
        limits = bench_limits.measure("cpu", (torch.bfloat16,), small=args.smoke)
        print(limits.words(), file=sys.stderr)
        r.value("read_bandwidth", limits.read_samples, unit="byte/s", note="measured in this run")
        measure(r, kinds, args, sizes, runs, limits, base)
        partial.save(r, argv, args.out, "cpu")
    return 0


def measure(r: results.Recorder, kinds: list[str], args: argparse.Namespace, sizes: Sizes,
            runs: int, limits: bench_limits.Limits, base: Callable[[str], Model]) -> None:
    """All formats and peers in turn, `runs` times."""
    models = {kind: model_of(kind, args.model, base) for kind in kinds}
    engines = {kind: engine_of(model, sizes) for kind, model in models.items()}
    vocab = next(iter(models.values())).config.vocab_size
    draw = random.Random(0)

    def prompt(n: int) -> list[int]:
        return [draw.randrange(vocab) for _ in range(n)]

    one, long, eight = prompt(sizes.prompt), prompt(sizes.long), [
        prompt(sizes.prompt) for _ in range(AT_ONCE)]
    others: dict[str, Callable[[], float]] = {}
    if peers.has_transformers() and not args.smoke:
        peer = peers.transformers_model(base("bfloat16"))
        others["transformers"] = lambda: peers_speed.transformers_alone(
            peer, one, sizes.new, 1, warm=0)[0]
    if not args.smoke:
        path = str(source.resolve(args.model)[0])
        if (llama := llama_cpp_s(path, one, sizes.new)) is not None:
            others["llama_cpp"] = llama
    found: dict[str, list[float]] = {}
    for run in range(runs + 1):  # the first one warms up
        for kind, engine in engines.items():
            times = {f"{kind}": decode_s(engine, [one], sizes.new)[1],
                     f"{kind}_prefill": decode_s(engine, [long], 1)[0],
                     f"{kind}_batch8": decode_s(engine, eight, sizes.batch_new)[1]}
            for name, seconds in times.items():
                found.setdefault(name, []).extend([seconds] if run else [])
        for name, other in others.items():
            found.setdefault(name, []).extend([other()] if run else [])
        print(f"  run {run} of {runs}", file=sys.stderr, flush=True)
    for kind, engine in engines.items():
        _record(r, kind, engine, found, sizes, limits)
    for name in others:
        r.value(f"{name}_rate", [(sizes.new - 1) / s for s in found[name]], unit="token/s",
                note="one request, decoding only")
    _gains(r, found)


def _record(r: results.Recorder, kind: str, engine: Engine, found: dict[str, list[float]],
            sizes: Sizes, limits: bench_limits.Limits) -> None:
    read = bench_limits.weights_read(engine.model)
    work = bench_limits.decode(engine.model, sizes.prompt, sizes.new,
                               statistics.median(found[kind]))
    rate = r.value(f"{kind}_rate", [(sizes.new - 1) / s for s in found[kind]], unit="token/s",
                   note=f"one request, prompt {sizes.prompt}, {sizes.new} new tokens, decoding")
    r.value(f"{kind}_bytes", read, unit="byte", note="weights read for one token")
    r.value(f"{kind}_memory", engine.model.parameter_bytes(), unit="byte",
            note="weights of the engine, the embedding among them")
    r.value(f"{kind}_bandwidth", work.bandwidth, unit="byte/s", note="weights and cache")
    share = r.value(f"{kind}_share", work.bandwidth / limits.read_bytes_per_s, unit="",
                    note="of the read limit of this run")
    prefill = r.value(f"{kind}_prefill_rate", [sizes.long / s for s in found[f"{kind}_prefill"]],
                      unit="token/s", note=f"one prompt of {sizes.long} tokens")
    tokens = AT_ONCE * (sizes.batch_new - 1)
    batch = r.value(f"{kind}_batch8_rate", [tokens / s for s in found[f"{kind}_batch8"]],
                    unit="token/s", note=f"{AT_ONCE} requests decoding at once, in all")
    print(f"  {kind:<6} {rate:7,.1f} tokens/s  {work.bandwidth / 1e9:5,.1f} GB/s "
          f"({100 * share:3.0f} %)  prefill {prefill:7,.0f}  eight {batch:7,.0f}",
          file=sys.stderr, flush=True)


def _gains(r: results.Recorder, found: dict[str, list[float]]) -> None:
    """Rates over each other: medians of the same run."""
    middle = {name: statistics.median(times) for name, times in found.items() if times}
    for kind in ("int8", "w8a8", "int4", "gguf"):
        if kind in middle and "bf16" in middle:
            r.value(f"{kind}_gain", middle["bf16"] / middle[kind], unit="",
                    note="decoding, over bf16")
    if "transformers" in middle:
        best = min(middle[kind] for kind in ("fp32", "bf16") if kind in middle)
        r.value("transformers_gain", middle["transformers"] / best, unit="",
                note="the faster of fp32 and bf16 over transformers in bf16")
    if "llama_cpp" in middle and "gguf" in middle:
        r.value("llama_cpp_gain", middle["llama_cpp"] / middle["gguf"], unit="",
                note="gguf over llama.cpp on the same file")


if __name__ == "__main__":
    sys.exit(main())
