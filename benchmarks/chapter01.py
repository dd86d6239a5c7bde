"""The numbers of chapter 1: the naive and the cached loop, batched decoding, a real distribution.

    python -m benchmarks.chapter01 [--device cuda|cpu] [--smoke] [--out DIR]

On a GPU it times random weights of the shapes of Llama-3-8B and Qwen3-0.6B through `infero.model`
as chapter 1 leaves it: plain PyTorch, no graphs, no kernels of its own. On a CPU it times SmolLM2
and also writes down two of its next-token distributions. Before a loop is timed, recomputing and
caching are checked to give the same logits.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from infero import generate, model, results, sampling
from infero.cache import contiguous
from infero.model import Batch, Model, ModelConfig

SHAPES = {
    "llama3_8b": ModelConfig("llama", 128_256, 4096, 14_336, 32, 32, 8, 128, 8192,
                             rope_theta=500_000.0),
    "qwen3_06b": ModelConfig("qwen3", 151_936, 1024, 3072, 28, 16, 8, 128, 40_960, norm_eps=1e-6,
                             rope_theta=1e6, tie_embeddings=True, qk_norm=True),
}
SMOKE = ModelConfig("llama", 512, 64, 128, 2, 4, 2, 16, 8192)
PROMPTS = {  # one continuation is nearly certain, one is open
    "certain": "The capital of France is",
    "open": "Last night I dreamed that",
}
TEMPERATURES = (0.5, 1.0, 1.5)
TOP = 40  # tokens of a distribution that are written down


def timed(run: Callable[[], object], device: torch.device, n: int, warmup: int) -> list[float]:
    """Seconds of n calls by the wall clock, each ended by a synchronisation."""
    times = []
    for i in range(warmup + n):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i >= warmup:
            times.append(time.perf_counter() - start)
    return times


def median(samples: Sequence[float]) -> float:
    return sorted(samples)[len(samples) // 2]


# ---------------------------------------------------------------- loops


def loops(r: results.Recorder, name: str, m: Model, contexts: Sequence[int], n: int) -> None:
    """Time of one more token at each context length, by recomputing and from the cache.

    Writes the table NAME_loops and, for the middle context, NAME_naive_time, NAME_cached_time and
    NAME_cached_rate.
    """
    rows = []
    for context in contexts:
        tokens = torch.randint(0, m.config.vocab_size, (context,),
                               generator=torch.Generator().manual_seed(context)).tolist()
        cache = contiguous.allocate(m.config, 1, context, m.dtype, m.device)
        whole = generate.step(m, cache, tokens, 0)
        cache = contiguous.allocate(m.config, 1, context, m.dtype, m.device)
        generate.step(m, cache, tokens[:-1], 0)
        newest = generate.step(m, cache, tokens[-1:], context - 1)
        difference = float((whole - newest).abs().max() / whole.std())
        if not difference < 0.25:
            raise RuntimeError(f"{name}: recomputed and cached logits at context {context} differ "
                               f"by {difference:.2f} standard deviations; the limit is 0.25.")

        def recompute(tokens: list[int] = tokens, context: int = context) -> int:
            fresh = contiguous.allocate(m.config, 1, context, m.dtype, m.device)
            return int(generate.step(m, fresh, tokens, 0).argmax())

        def from_cache(tokens: list[int] = tokens, context: int = context,
                       cache: contiguous.KVCache = cache) -> int:
            return int(generate.step(m, cache, tokens[-1:], context - 1).argmax())

        naive = timed(recompute, m.device, max(3, n // 2), 1)
        cached = timed(from_cache, m.device, 2 * n, 3)
        rows.append([context, median(naive), median(cached)])
        if context == contexts[len(contexts) // 2]:
            note = f"{m.dtype}".removeprefix("torch.") + f", context {context}"
            r.value(f"{name}_context", context, unit="token")
            r.value(f"{name}_naive_time", naive, unit="s", note=note)
            r.value(f"{name}_cached_time", cached, unit="s", note=note)
            r.value(f"{name}_cached_rate", [1 / t for t in cached], unit="token/s", note=note)
            r.value(f"{name}_speedup", median(naive) / median(cached), unit="", note=note)
    r.table(f"{name}_loops", [("context", "token"), ("naive", "s"), ("cached", "s")], rows)


# ---------------------------------------------------------------- many requests


def decode_batch(m: Model, batch: int, context: int, n: int) -> list[float]:
    """Seconds of n decode steps of `batch` requests that hold `context` tokens each."""
    cache = contiguous.allocate(m.config, batch, context + 1, m.dtype, m.device)
    for layer in (*cache.k, *cache.v):
        layer.normal_()
    step: Batch = contiguous.next_batch(cache, [context] * batch, [1] * batch)
    tokens = torch.zeros(batch, dtype=torch.int64, device=m.device)
    return timed(lambda: model.forward(m, tokens, step, cache).argmax(-1).tolist(), m.device, n, 3)


def batches(r: results.Recorder, name: str, m: Model, sizes: Sequence[int], context: int,
            n: int) -> None:
    """The table NAME_batch: time between tokens and tokens a second for growing batches."""
    rows = []
    for size in sizes:
        times = decode_batch(m, size, context, n)
        rows.append([size, median(times), size / median(times)])
        if size in (sizes[0], sizes[-1]):
            which = "one" if size == sizes[0] else "many"
            note = f"{size} requests of {context} tokens"
            r.value(f"{name}_{which}_rate", [size / t for t in times], unit="token/s", note=note)
    r.value(f"{name}_batch_size", sizes[-1], unit="")
    r.value(f"{name}_batch_context", context, unit="token")
    r.table(f"{name}_batch", [("batch", ""), ("itl", "s"), ("rate", "token/s")], rows)


def read_limit(device: torch.device, smoke: bool) -> list[float]:
    """Read bandwidth in byte/s: sums over buffers far larger than any cache."""
    size = 2**22 if smoke else (2**31 if device.type == "cuda" else 2**28)
    buffers = [torch.randn(size // 4, device=device) for _ in range(2)]
    turn = iter(range(10**9))
    return [size / t for t in timed(lambda: buffers[next(turn) % 2].sum().item(), device, 10, 4)]


def limits(r: results.Recorder, name: str, m: Model, bandwidth: float) -> None:
    """What reading every weight once a token would allow, and the share that is reached."""
    read = m.parameter_bytes()
    if m.head is not m.embedding:
        read -= m.embedding.numel() * m.embedding.element_size()
    r.value(f"{name}_weight_bytes", read, unit="byte", note="read for one token; no embedding")
    bound = bandwidth / read
    r.value(f"{name}_rate_bound", bound, unit="token/s", note="read bandwidth over weight bytes")
    r.value(f"{name}_share", r.values[f"{name}_cached_rate"]["value"] / bound, unit="",
            note="cached rate over that bound")


# ---------------------------------------------------------------- one real request, on a CPU


def timeline(r: results.Recorder, m: Model, prompt_tokens: int, new_tokens: int) -> None:
    """When each token of one request arrived, after a warm-up request: the table timeline."""
    prompt = torch.randint(5, m.config.vocab_size, (prompt_tokens,),
                           generator=torch.Generator().manual_seed(1)).tolist()
    params = sampling.SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
    arrivals: list[float] = []
    for _ in range(2):
        start = time.perf_counter()
        arrivals = [time.perf_counter() - start for _ in generate.stream(m, prompt, params)]
    gaps = [b - a for a, b in pairwise(arrivals)]
    note = f"prompt of {prompt_tokens} tokens, {new_tokens} new tokens"
    r.value("smollm2_ttft", arrivals[0], unit="s", note=note)
    r.value("smollm2_itl", gaps, unit="s", note=note)
    r.value("smollm2_e2e", arrivals[-1], unit="s", note=note)
    r.value("smollm2_prompt", prompt_tokens, unit="token")
    r.value("smollm2_output", new_tokens, unit="token")
    r.table("timeline", [("token", ""), ("time", "s")], [[i, t] for i, t in enumerate(arrivals)])


def distributions(r: results.Recorder, m: Model) -> None:
    """Two next-token distributions of the real model at three temperatures.

    For each prompt: a table of the most probable tokens, the size of the nucleus at p = 0.9 and
    the entropy in bits for each temperature.
    """
    assert m.tokenizer is not None
    for which, prompt in PROMPTS.items():
        ids = m.tokenizer.encode(prompt)
        cache = contiguous.allocate(m.config, 1, len(ids), m.dtype, m.device)
        logits = generate.step(m, cache, ids, 0)
        top = logits.topk(TOP)
        columns: list[Tensor] = []
        for t in TEMPERATURES:
            row = sampling.temperature(logits[None], torch.tensor([t]))
            probs = row.softmax(-1)[0]
            columns.append(probs[top.indices])
            nucleus = torch.isfinite(sampling.top_p(row, torch.tensor([0.9]))).sum()
            tag = f"{which}_t{round(10 * t):02d}"
            r.value(f"{tag}_nucleus", int(nucleus), unit="token", note="tokens in the 0.9 nucleus")
            r.value(f"{tag}_kept_by_min_p", int((probs >= 0.1 * probs.max()).sum()), unit="token",
                    note="tokens kept by min-p 0.1")
            bits = float(-(probs * probs.clamp_min(1e-30).log()).sum() / math.log(2))
            r.value(f"{tag}_entropy", bits, unit="bit")
        names = [m.tokenizer.decode([int(i)]) for i in top.indices]
        r.table(f"{which}_tokens",
                [("token", ""), *((f"p_t{round(10 * t):02d}", "") for t in TEMPERATURES)],
                [[n, *(float(c[i]) for c in columns)] for i, n in enumerate(names)])


# ---------------------------------------------------------------- main


def gpu(r: results.Recorder, device: torch.device, smoke: bool) -> None:
    bandwidth = r.value("read_bandwidth", read_limit(device, smoke), unit="byte/s")
    contexts = (16, 32, 64) if smoke else (128, 256, 512, 1024, 2048, 4096, 8191)
    sizes = (1, 2, 4) if smoke else (1, 2, 4, 8, 16, 32, 64)
    for name, config in SHAPES.items():
        started = time.perf_counter()
        m = model.random_model(SMOKE if smoke else config, dtype=torch.bfloat16, device=device)
        loops(r, name, m, contexts, 2 if smoke else 8)
        limits(r, name, m, bandwidth)
        batches(r, name, m, sizes, 16 if smoke else 512, 2 if smoke else 8)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        del m
        if device.type == "cuda":
            torch.cuda.empty_cache()


def cpu(r: results.Recorder, device: torch.device, smoke: bool) -> None:
    from infero.loading import load

    bandwidth = r.value("read_bandwidth", read_limit(device, smoke), unit="byte/s")
    m = load(device="cpu")
    loops(r, "smollm2", m, (8, 16) if smoke else (16, 32, 64, 128, 256, 512, 1024),
          2 if smoke else 8)
    limits(r, "smollm2", m, bandwidth)
    timeline(r, m, 16 if smoke else 200, 4 if smoke else 24)
    distributions(r, load(device="cpu", dtype="float32"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chapter01", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--shapes", action="store_true",
                        help="on a CPU, run the GPU's part instead (with --smoke)")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    given = list(sys.argv[1:] if argv is None else argv)
    with results.record("chapter01", argv=given, out=args.out, device=args.device) as r:
        part = gpu if args.device == "cuda" or args.shapes else cpu
        part(r, device, args.smoke)


if __name__ == "__main__":
    main(sys.argv[1:])
