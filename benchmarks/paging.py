"""What a cached prefix saves: time to first token, cold and warm, by the length of the prefix.

    python -m benchmarks.paging [--device cuda|cpu] [--smoke] [--out DIR]

Prompts are a prefix of random tokens and a short tail that is new each time. Cold: the prefix was
never seen. Warm: an earlier request had the same prefix, so its blocks are found. On a CPU the
model is SmolLM2; on a GPU random weights of the shapes of Qwen3-0.6B and Llama-3-8B. Also: what
hashing costs. How memory is wasted is simulated by `benchmarks.fragmentation`. Chapter 8.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.chapter01 import SHAPES, SMOKE
from infero import model, results
from infero.cache import pool
from infero.engine import Engine, EngineConfig
from infero.model import Model
from infero.sampling import SamplingParams

TAIL = {"cpu": 32, "cuda": 64}  # new tokens of every prompt
BLOCK = 16


def first_token_s(engine: Engine, id: str, prompt: list[int]) -> tuple[float, int, int]:
    """Time to first token of one request alone, its cached tokens, and the token."""
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    synchronize(engine.model)
    start_s = time.perf_counter()
    engine.add_request(id, prompt, params)
    chunks = []
    while engine.has_unfinished():
        chunks += engine.step()
    synchronize(engine.model)
    seconds = time.perf_counter() - start_s
    metrics = chunks[-1].metrics
    assert metrics is not None
    assert chunks[0].token is not None
    return seconds, metrics.cached_tokens, chunks[0].token


def synchronize(m: Model) -> None:
    if m.device.type == "cuda":
        torch.cuda.synchronize()


def ttft(r: results.Recorder, name: str, m: Model, prefixes: Sequence[int], tail: int, n: int
         ) -> None:
    """The table NAME_ttft: prefix, cold, warm; and values at the longest prefix."""
    longest = max(prefixes) + tail
    blocks = 3 * (longest // BLOCK + 2)  # a cold and a warm prompt, and room
    budget = 8192 if m.device.type == "cuda" else 2048
    engine = Engine(m, EngineConfig(block_size=BLOCK, num_blocks=blocks, max_model_len=longest + 1,
                                    max_num_batched_tokens=max(budget, 64)))
    draw = random.Random(8)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(m.config.vocab_size) for _ in range(count)]

    rows, agreed, compared, calls = [], 0, 0, 0
    for length in prefixes:  # every shape once before it is timed
        first_token_s(engine, f"warm-up {length}", tokens(length + tail))
    cold_last: list[float] = []
    warm_last: list[float] = []
    for length in prefixes:
        engine.reset()
        cold, warm = [], []
        for sample in range(n):  # taking turns: whatever drifts hits both
            prefix = tokens(length)
            seconds, hit, _ = first_token_s(engine, f"{calls}", prefix + tokens(tail))
            if hit:
                raise RuntimeError(f"a prefix of {length} random tokens was found in the cache")
            cold.append(seconds)
            prompt = prefix + tokens(tail)
            seconds, hit, token = first_token_s(engine, f"{calls + 1}", prompt)
            if hit != length // BLOCK * BLOCK:
                raise RuntimeError(f"{hit} tokens of a prefix of {length} were found")
            warm.append(seconds)
            engine.reset()
            if sample == 0:  # the same prompt without what was cached should give the same token
                agreed += first_token_s(engine, f"{calls + 2}", prompt)[2] == token
                compared += 1
                engine.reset()
            calls += 3
        rows.append([length, statistics.median(cold), statistics.median(warm)])
        cold_last, warm_last = cold, warm
    dtype = f"{m.dtype}".removeprefix("torch.")
    note = f"{dtype}, prefix {prefixes[-1]}, {tail} new tokens"
    r.table(f"{name}_ttft", [("prefix", "token"), ("cold", "s"), ("warm", "s")], rows)
    r.value(f"{name}_prefix", prefixes[-1], unit="token")
    r.value(f"{name}_tail", tail, unit="token")
    r.value(f"{name}_cold", cold_last, unit="s", note=note)
    r.value(f"{name}_warm", warm_last, unit="s", note=note)
    speedup = statistics.median(cold_last) / statistics.median(warm_last)
    r.value(f"{name}_speedup", speedup, unit="", note=f"cold over warm, {note}")
    rate = (prefixes[-1] + tail) / statistics.median(cold_last)
    r.value(f"{name}_rate", rate, unit="token/s", note=f"prompt tokens over cold TTFT, {note}")
    r.value(f"{name}_predicted", tail / rate, unit="s", note="new tokens over that rate")
    r.value(f"{name}_agreed", agreed / compared, unit="", n=compared,
            note="share of prompts whose first token is the same cold and warm")
    print(f"{name}: cold {rows[-1][1]:.4f} s, warm {rows[-1][2]:.4f} s", file=sys.stderr)


def hashing(r: results.Recorder, n: int) -> None:
    """What hashing a prompt costs a token, on one core of the host."""
    draw = random.Random(1)
    tokens = [draw.randrange(100_000) for _ in range(8192)]
    times = []
    for _ in range(n):
        start_s = time.perf_counter()
        found = pool.chain(pool.root(), tokens, BLOCK)
        times.append((time.perf_counter() - start_s) / len(tokens))
        if len(found) != len(tokens) // BLOCK:
            raise RuntimeError(f"{len(found)} digests for {len(tokens)} tokens")
    r.value("hash_time", times[1:], unit="s", note=f"a token, sha256 over blocks of {BLOCK}")


def gpu(r: results.Recorder, device: torch.device, smoke: bool) -> None:
    prefixes = (0, 32, 64) if smoke else (0, 512, 1024, 2048, 4096, 7936)
    for name, config in reversed(SHAPES.items()):
        m = model.random_model(SMOKE if smoke else config, dtype=torch.bfloat16, device=device)
        ttft(r, name, m, prefixes, 16 if smoke else TAIL["cuda"], 2 if smoke else 5)
        del m
        if device.type == "cuda":
            torch.cuda.empty_cache()


def cpu(r: results.Recorder, smoke: bool) -> None:
    from infero.loading import load

    prefixes = (0, 32) if smoke else (0, 64, 128, 256, 512, 1024)
    ttft(r, "smollm2", load(device="cpu"), prefixes, TAIL["cpu"], 2 if smoke else 5)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paging", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--shapes", action="store_true",
                        help="on a CPU, run the GPU's part instead (with --smoke)")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    with results.record("paging", argv=given, out=args.out, device=args.device) as r:
        hashing(r, 3 if args.smoke else 9)
        if args.device == "cuda" or args.shapes:
            gpu(r, torch.device(args.device), args.smoke)
        else:
            cpu(r, args.smoke)


if __name__ == "__main__":
    main(sys.argv[1:])
