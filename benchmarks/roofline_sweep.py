"""Predictions of the roofline held against a real device: matmuls, decode steps and prefills.

    python -m benchmarks.roofline_sweep [--device cuda|cpu] [--smoke] [--out DIR]

Random weights of Llama-3-8B's shape, bf16, plain PyTorch operations (no Triton, no compiler).
On a GPU every measured step is captured once in a CUDA graph and replayed, so that the time is
the device's and not the interpreter's; one row shows what happens without the graph. The decode
step is measured in three layers of completeness, matrices alone, with attention, complete, which
says where the time above the prediction goes. The step is checked against infero.model.forward.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.limits import GiB, matmul_samples, read_samples, samples_s
from infero import model as engine
from infero import results, roofline
from infero.cache import contiguous
from infero.hardware import Device
from infero.model import Model, ModelConfig
from infero.roofline import ModelShape

PARTS = {"matrices": "matrix products only", "attention": "matrix products and attention",
         "no_graph": "complete step, launched from Python"}


def config_of(shape: ModelShape) -> ModelConfig:
    """A ModelConfig with this published shape."""
    return ModelConfig(
        shape.architecture, shape.vocab_size, shape.hidden_size, shape.intermediate_size,
        shape.num_layers, shape.num_heads, shape.num_kv_heads, shape.head_dim,
        max_context=shape.max_context, tie_embeddings=shape.tie_embeddings,
        rope_theta=500_000.0,
    )


@dataclass
class Cache:
    """Keys and values of a batch of equally long requests: [layers, batch, kv_heads, ctx, dim]."""

    k: Tensor
    v: Tensor


def cache_views(pool: Tensor, config: ModelConfig, batch: int, context: int) -> Cache:
    """A cache cut out of `pool`, a flat tensor with room for it."""
    shape = (2, config.num_layers, batch, config.num_kv_heads, context, config.head_dim)
    count = 1
    for size in shape:
        count *= size
    k, v = pool[:count].view(shape)
    return Cache(k, v)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE with ready-made cos and sin [tokens, 1, dim]; the sine's first half is negated."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def step(model: Model, cache: Cache, tokens: Tensor, cos: Tensor, sin: Tensor, new: int,
         part: str = "complete") -> Tensor:
    """One step of `batch` equal requests with `new` tokens each; float32 logits [batch, vocab].

    tokens: [batch * new]. `part` leaves work out: "matrices" runs only the matrix products,
    "attention" adds attention over the cache, "complete" is the real thing.
    """
    config, whole = model.config, part == "complete"
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
    group = heads // kv_heads
    eps, batch = config.norm_eps, tokens.shape[0] // new
    context = cache.k.shape[3]
    x = F.embedding(tokens, model.embedding)
    for index, layer in enumerate(model.layers):
        h = F.rms_norm(x, (config.hidden_size,), layer.input_norm, eps) if whole else x
        qkv = F.linear(h, layer.qkv).view(-1, heads + 2 * kv_heads, dim)
        if whole:
            qk = rotate(qkv[:, : heads + kv_heads], cos, sin)
            q = qk[:, :heads]
            written = qk[:, heads:].view(batch, new, kv_heads, dim).transpose(1, 2)
            cache.k[index][:, :, context - new :] = written
            v = qkv[:, heads + kv_heads :].view(batch, new, kv_heads, dim).transpose(1, 2)
            cache.v[index][:, :, context - new :] = v
        else:
            q = qkv[:, :heads]
        if part == "matrices":
            mixed = q
        elif new == 1:  # the query heads of a group act as queries of one head: K, V read once
            mixed = F.scaled_dot_product_attention(
                q.reshape(batch, kv_heads, group, dim), cache.k[index], cache.v[index]
            )
        else:
            mixed = F.scaled_dot_product_attention(
                q.reshape(batch, new, heads, dim).transpose(1, 2),
                cache.k[index], cache.v[index], is_causal=True, enable_gqa=group > 1,
            ).transpose(1, 2)
        x_attention = F.linear(mixed.reshape(-1, heads * dim), layer.o)
        x = x + x_attention if whole else x_attention
        h = F.rms_norm(x, (config.hidden_size,), layer.post_norm, eps) if whole else x
        gate_up = F.linear(h, layer.gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        mlp = F.linear(F.silu(gate) * up if whole else gate, layer.down)
        x = x + mlp if whole else mlp
    last = x.view(batch, new, -1)[:, -1]
    if whole:
        last = F.rms_norm(last, (config.hidden_size,), model.final_norm, eps)
    return F.linear(last, model.head).float()


def angles(model: Model, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [tokens, 1, dim] in the model's dtype, the first half of sin negated."""
    half = positions.float()[:, None] * model.inv_freq
    cos = torch.cat((half.cos(), half.cos()), -1)[:, None]
    sin = torch.cat((-half.sin(), half.sin()), -1)[:, None]
    return cos.to(model.dtype), sin.to(model.dtype)


def graphed(run: Callable[[], object], device: str) -> Callable[[int], object]:
    """`run` captured in a CUDA graph; on a CPU, run itself."""
    if device == "cpu":
        return lambda _: run()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return lambda _: graph.replay()


def spread(samples: list[float]) -> float:
    """Interquartile range over the median."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return (high - low) / middle


@torch.inference_mode()
def step_samples(model: Model, pool: Tensor, batch: int, new: int, context: int, *, n: int,
                 part: str = "complete", graph: bool = True) -> list[float]:
    """Seconds of n steps of `batch` requests with `new` tokens at `context`."""
    device = model.device.type
    cache = cache_views(pool, model.config, batch, context)
    tokens = torch.randint(model.config.vocab_size, (batch * new,), device=device)
    positions = torch.arange(context - new, context, device=device).repeat(batch)
    cos, sin = angles(model, positions)

    def run() -> Tensor:
        return step(model, cache, tokens, cos, sin, new, part)

    call = graphed(run, device) if graph else (lambda _: run())
    return samples_s(call, device, n, warmup=max(2, n // 4))


@torch.inference_mode()
def check_step(model: Model) -> float:
    """Largest difference between `step` and infero.model.forward, relative to the logits' size."""
    config, device = model.config, model.device
    worst = 0.0
    for batch, old, new in ((3, 16, 1), (2, 0, 9)):
        context = old + new
        reference = contiguous.allocate(config, batch, context, model.dtype, device)
        tokens = torch.randint(config.vocab_size, (batch, context), device=device)
        if old:
            first = contiguous.next_batch(reference, [0] * batch, [old] * batch)
            engine.forward(model, tokens[:, :old].reshape(-1), first, reference)
        shape = (config.num_layers, batch, context, config.num_kv_heads, config.head_dim)
        cache = Cache(*(t.view(shape).transpose(2, 3).clone() for t in (reference.k, reference.v)))
        now = contiguous.next_batch(reference, [old] * batch, [new] * batch)
        fresh = tokens[:, old:].reshape(-1)
        rows = torch.arange(1, batch + 1, device=device) * new - 1
        want = engine.forward(model, fresh, now, reference, rows)
        got = step(model, cache, fresh, *angles(model, now.positions), new)
        worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    return worst


@torch.inference_mode()
def matmul_sweep(shapes: dict[str, tuple[int, int]], rows_list: Sequence[int], device: str,
                 rotate_bytes: float, n: int) -> list[list[object]]:
    """Time of x [M, K] times weight [N, K] transposed for each layer shape and each M."""
    table: list[list[object]] = []
    for name, (out, inp) in shapes.items():
        copies = max(1, round(rotate_bytes / (2 * out * inp)))
        weights = [
            torch.randn(out, inp, device=device).to(torch.bfloat16) * inp**-0.5
            for _ in range(copies)
        ]
        for rows in rows_list:
            x = torch.randn(rows, inp, device=device).to(torch.bfloat16)

            def run(x: Tensor = x, weights: list[Tensor] = weights) -> None:
                for weight in weights:
                    F.linear(x, weight)

            times = [t / copies for t in samples_s(graphed(run, device), device, n, warmup=3)]
            table.append([name, rows, out, inp, statistics.median(times), spread(times)])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline_sweep",
                                     description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    device, small = args.device, args.smoke or args.device == "cpu"
    torch.manual_seed(0)

    tiny = ModelConfig("llama", 512, 128, 352, 2, 6, 2, 32, max_context=512)
    checked = engine.random_model(tiny, dtype=torch.float32, device=device)
    error = check_step(checked)
    if error > 1e-3:
        raise RuntimeError(f"The measured step is off from infero.model.forward by {error:.1%}.")

    config = tiny if small else config_of(roofline.MODELS["llama-3-8b"])
    hidden, inter, qkv = config.hidden_size, config.intermediate_size, (
        config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    shapes = {
        "qkv": (qkv, hidden), "o": (hidden, config.num_heads * config.head_dim),
        "gate_up": (2 * inter, hidden), "down": (hidden, inter),
        "head": (config.vocab_size, hidden),
    }
    rows_list = [1, 4, 16] if small else [2**i for i in range(13)]
    batches = [1, 4] if small else [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256]
    contexts = [16, 64] if small else [128, 512, 1024, 2048, 4096, 8192]
    prompts = [8, 32] if small else [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    fixed_context, fixed_batch = (32, 2) if small else (1024, 32)
    n = 3 if small else 30

    with results.record("roofline_sweep", argv=argv, out=args.out, device=device) as r:
        r.value("check_error", error, unit="", note="step against infero.model.forward, float32")
        size, side, reps = (2**22, 256, 3) if small else (4 * GiB, 8192, 30)
        read = read_samples(device, size, reps)[0]
        matmul = matmul_samples(device, side, torch.bfloat16, reps)
        r.value("read_bandwidth", read, unit="byte/s")
        r.value("matmul_bf16", matmul, unit="flop/s")
        limits = Device("here", "this run", "", "gpu", 0, statistics.median(read),
                        {"bf16": statistics.median(matmul)})
        r.table("matmul", columns=[("layer", ""), ("rows", ""), ("out", ""), ("in", ""),
                                   ("time", "s"), ("spread", "")],
                rows=matmul_sweep(shapes, rows_list, device, 2**20 if small else 4e8, n))

        model = engine.random_model(config, dtype=torch.bfloat16, device=device)
        room = max(batches[-1] * fixed_context, fixed_batch * contexts[-1], prompts[-1])
        per_token = roofline.kv_bytes_per_token(config) / 2  # elements
        pool = torch.randn(int(room * per_token), dtype=torch.bfloat16, device=device)

        def median(*where: int, reps: int = n, **kind: object) -> tuple[float, float]:
            times = step_samples(model, pool, *where, n=reps, **kind)  # type: ignore[arg-type]
            return statistics.median(times), spread(times)

        columns = [("batch", ""), ("context", ""), ("time", "s"), ("spread", "")]
        r.table("decode_by_batch", columns=columns, rows=[
            [b, fixed_context, *median(b, 1, fixed_context)] for b in batches])
        r.table("decode_by_context", columns=columns, rows=[
            [fixed_batch, c, *median(fixed_batch, 1, c)] for c in contexts])
        r.table("prefill", columns=columns, rows=[
            [1, p, *median(1, p, p, reps=max(3, n // 2))] for p in prompts])
        # What the time above the prediction is made of, at batch 1.
        for label, part, graph in (("matrices", "matrices", True), ("attention", "attention", True),
                                   ("no_graph", "complete", False)):
            times = step_samples(model, pool, 1, 1, fixed_context, n=n, part=part, graph=graph)
            r.value(f"decode_b1_{label}", times, unit="s",
                    note=PARTS[label] + f", context {fixed_context}")
        long = prompts[-2]
        for label, batch, new, context in (
            ("decode_b1", 1, 1, fixed_context), ("decode_b32", fixed_batch, 1, fixed_context),
            ("decode_b256", batches[-1], 1, fixed_context), ("prefill_2048", 1, long, long),
        ):
            times = step_samples(model, pool, batch, new, context, n=n)
            r.value(label, times, unit="s",
                    note=f"batch {batch}, {new} new tokens, context {context}, CUDA graph")
            r.value(f"{label}_rate", [batch * new / t for t in times], unit="token/s")
            p = roofline.predict(config, limits, batch=batch, new=new, context=context)
            taken, must_move = statistics.median(times), p.weights_bytes + p.kv_cache_bytes
            derived = "from the limits measured in the same run"
            r.value(f"{label}_predicted", p.time_s, unit="s", note=derived)
            r.value(f"{label}_ratio", taken / p.time_s, unit="", note="measured over predicted")
            r.value(f"{label}_mbu", roofline.mbu(must_move, taken, limits.bandwidth_bytes_per_s),
                    unit="", note=derived)
            r.value(f"{label}_mfu", roofline.mfu(p.flops, taken, limits.peak("bf16")), unit="",
                    note=derived)


if __name__ == "__main__":
    main(sys.argv[1:])
