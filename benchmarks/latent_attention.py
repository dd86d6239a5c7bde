"""Decode attention of one DeepSeek-V3 layer in three ways: heads stored, expanded, absorbed.

    python -m benchmarks.latent_attention [--smoke] [--out DIR]

One query of 128 heads over a growing context, random bf16 values, plain PyTorch in a CUDA graph:
`infero.mla`'s two forms over the latent cache, and attention over stored keys and values of every
head, whose memory is 71 times as large. Latents rotate through copies that L2 cannot hold. Before
the timing all three are checked to agree. Chapter 7.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.limits import samples_s
from infero import mla, results
from infero.mla import MLAConfig

CONTEXTS = (1024, 2048, 4096, 8192, 16_384, 32_768)
QUOTED = 16_384  # the context whose times the text quotes
LAPS = 8  # calls in one graph, each over latents of its own


def inputs(c: MLAConfig, context: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """q, q_rope, latent, k_rope, w_uk, w_uv of one layer for one query."""
    g = torch.Generator(device=device).manual_seed(context)
    shapes = [(1, c.heads, c.dim), (1, c.heads, c.rope_dim), (context, c.rank),
              (context, c.rope_dim), (c.heads, c.dim, c.rank), (c.heads, c.v_dim, c.rank)]
    made = [torch.randn(shape, generator=g, device=device) for shape in shapes]
    made[4:] = [w * c.rank**-0.5 for w in made[4:]]
    return [t.to(dtype) for t in made]


def stored_heads(c: MLAConfig, given: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """q [heads, 1, dim + rope], k [heads, context, dim + rope], v [heads, context, v_dim]."""
    q, q_rope, latent, k_rope, w_uk, w_uv = given
    k = torch.empty(c.heads, len(latent), c.dim + c.rope_dim, dtype=q.dtype, device=q.device)
    k[..., : c.dim] = torch.matmul(latent, w_uk.transpose(1, 2))
    k[..., c.dim :] = k_rope
    v = torch.matmul(latent, w_uv.transpose(1, 2))
    return torch.cat((q, q_rope), dim=-1).transpose(0, 1).contiguous(), k, v


def over_stored(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Plain attention of one query over stored heads: [heads, 1, v_dim]."""
    weights = (torch.bmm(q, k.transpose(1, 2)).float() * scale).softmax(dim=-1)
    return torch.bmm(weights.to(v.dtype), v)


def graph_of(calls: Sequence[Callable[[], Tensor]], device: str) -> Callable[[int], object]:
    """A function that runs all of `calls`: replayed from a CUDA graph, without Python between."""
    if device == "cpu":
        return lambda i: [call() for call in calls]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up outside the capture
        calls[0]()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return lambda i: graph.replay()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latent_attention",
                                     description="Latent attention in three ways.")
    parser.add_argument("--smoke", action="store_true", help="a tiny layer, on the CPU too")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.smoke:
        sys.exit("A layer of DeepSeek-V3 needs a GPU here; try --smoke, or make gpu.")
    small = MLAConfig(layers=1, hidden=0, heads=4, dim=16, rope_dim=8, v_dim=16, rank=32)
    c = small if args.smoke else mla.DEEPSEEK_V3
    contexts = (32, 64) if args.smoke else CONTEXTS
    quoted = contexts[-1] if args.smoke else QUOTED
    rows = []
    with results.record("latent_attention", argv=argv, out=args.out, device=device) as r:
        for context in contexts:
            given = inputs(c, context, torch.bfloat16, device)
            q, k, v = stored_heads(c, given)
            want = over_stored(q, k, v, c.scale).transpose(0, 1).float()
            for form in (mla.expanded_attention, mla.absorbed_attention):
                error = float((form(*given, c.scale).float() - want).abs().max() / want.std())
                if not error < 0.25:
                    raise RuntimeError(f"{form.__name__} at context {context} is off by {error:.2f}"
                                       " standard deviations; the limit is 0.25.")
            laps = [[*given[:2], *(t.clone() for t in given[2:4]), *given[4:]]
                    for _ in range(LAPS)]
            calls: dict[str, list[Callable[[], Tensor]]] = {
                "stored": [partial(over_stored, q, k, v, c.scale)] * 2,
                "expanded": [partial(mla.expanded_attention, *lap, c.scale) for lap in laps],
                "absorbed": [partial(mla.absorbed_attention, *lap, c.scale) for lap in laps],
            }
            taken = {}
            for name, several in calls.items():
                times = samples_s(graph_of(several, device), device, n=15, warmup=3)
                taken[name] = [t / len(several) for t in times]
            rows.append([context, *(sorted(t)[len(t) // 2] for t in taken.values())])
            if context == quoted:
                r.value("context", context, unit="token")
                for name, samples in taken.items():
                    r.value(f"{name}_time", samples, unit="s", note=f"bf16, one query, {context}")
                r.value("stored_bytes", k.nbytes + v.nbytes, unit="byte")
                r.value("latent_bytes", given[2].nbytes + given[3].nbytes, unit="byte")
            print(rows[-1], file=sys.stderr, flush=True)
        r.table("forms", [("context", "token"), ("stored", "s"), ("expanded", "s"),
                          ("absorbed", "s")], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
