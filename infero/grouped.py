"""Matrix products grouped by expert, in one launch: a study for mixture-of-experts layers.

In such a layer a router sends each token to k of many experts, each a small MLP. A loop over the
experts starts a product for each, most of them too small to fill the GPU, and needs the counts on
the host. Here the tokens are sorted by expert instead, each expert's rows are cut into tiles, and
one kernel computes all tiles: a tile looks up whose weight it needs. All of it happens on the
device, with sizes that depend only on the number of tokens, so it fits into a CUDA graph. Chapter
15 explains it; the idea is MegaBlocks' (Gale et al., arXiv:2211.15841).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infero.kernels.examples import Example
from infero.kernels.language import tl, triton


@dataclass(frozen=True)
class Routing:
    """Rows sorted by expert. Row i of the sorted order is the pair `order[i]`.

    Pair p = token * k + choice. order: [tokens * k] int64; starts: [experts + 1] int32, where the
    rows of expert e are starts[e] to starts[e + 1].
    """

    order: Tensor
    starts: Tensor
    choices: int


def route(chosen: Tensor, experts: int) -> Routing:
    """Sort the pairs of token and choice by expert. chosen: [tokens, k] integer, the experts."""
    flat = chosen.flatten()
    counts = torch.zeros(experts, dtype=torch.int32, device=chosen.device)
    counts.index_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    starts = torch.zeros(experts + 1, dtype=torch.int32, device=chosen.device)
    starts[1:] = counts.cumsum(0)
    return Routing(flat.argsort(stable=True), starts, chosen.shape[1])


def tile_list(starts: Tensor, rows: int, block: int) -> Tensor:
    """Cut each expert's rows into tiles of `block`: [tiles, 2] int32, expert and first row.

    `tiles` is the most that any routing of so many rows could need, so that no count has to come
    back to the host; what is left over has the expert -1.
    """
    experts = starts.shape[0] - 1
    most = min(rows, rows // block + experts)
    per = (starts.diff() + block - 1) // block
    ends = per.cumsum(0, dtype=torch.int32)
    tile = torch.arange(most, dtype=torch.int32, device=starts.device)
    expert = torch.searchsorted(ends, tile, right=True)
    owner = expert.clamp(max=experts - 1)
    first = starts[owner] + (tile - (ends - per)[owner]) * block
    return torch.stack([torch.where(expert < experts, expert, -1).int(), first.int()], dim=1)


def grouped_reference(x: Tensor, weights: Tensor, routing: Routing) -> Tensor:
    """The loop over experts: x [tokens, in], weights [experts, out, in] to [tokens * k, out]."""
    y = x.new_empty(len(routing.order), weights.shape[1])
    bounds = routing.starts.tolist()
    for expert, weight in enumerate(weights):
        rows = slice(bounds[expert], bounds[expert + 1])
        y[rows] = x[routing.order[rows] // routing.choices] @ weight.T
    return y


@triton.jit
def grouped_kernel(x, weights, order, starts, tiles, y, out, inner, choices,
                   BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    tile = tl.program_id(0)  # the tiles of an expert run together and share its weight in L2
    expert = tl.load(tiles + 2 * tile)
    if expert >= 0:
        end = tl.load(starts + expert + 1)
        row = tl.load(tiles + 2 * tile + 1) + tl.arange(0, BLOCK_M)
        token = tl.load(order + row, mask=row < end, other=0) // choices
        n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        weights += expert.to(tl.int64) * out * inner
        total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for start in range(0, inner, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            a = tl.load(x + token[:, None] * inner + k[None, :],
                        mask=(row < end)[:, None] & (k < inner)[None, :], other=0.0)
            b = tl.load(weights + n[None, :] * inner + k[:, None],
                        mask=(n < out)[None, :] & (k < inner)[:, None], other=0.0)
            total = tl.dot(a, b, total, input_precision="ieee")
        tl.store(y + row[:, None].to(tl.int64) * out + n[None, :], total,
                 mask=(row < end)[:, None] & (n < out)[None, :])


def grouped_matmul(x: Tensor, weights: Tensor, routing: Routing) -> Tensor:
    """All experts' products in one launch: x [tokens, in], weights [experts, out, in].

    Returns [tokens * k, out] in the sorted order: row i is x[order[i] // k] times the weight of the
    expert whose rows i lies among. Gathering the tokens is part of the kernel's loads.
    """
    (experts, out, inner), rows = weights.shape, len(routing.order)
    y = x.new_empty(rows, out)
    block_m = min(64, max(16, triton.next_power_of_2(rows // experts)))
    tiles = tile_list(routing.starts, rows, block_m)
    block_n, block_k = 64, 32 if x.device.type == "cpu" else 64
    grouped_kernel[(tiles.shape[0], triton.cdiv(out, block_n))](
        x, weights, routing.order, routing.starts, tiles, y, out, inner, routing.choices,
        block_m, block_n, block_k)
    return y


def mix(y: Tensor, routing: Routing, gates: Tensor) -> Tensor:
    """Back from sorted rows to tokens: y [tokens * k, out], gates [tokens, k] to [tokens, out]."""
    back = torch.empty_like(y)
    back[routing.order] = y
    return (back.unflatten(0, gates.shape) * gates[:, :, None].to(y.dtype)).sum(1)


def examples() -> list[Example]:
    """One call of the kernel, for the compiler (see `infero/kernels/examples.py`)."""
    blocks = {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 64}
    signature = {"x": "*bf16", "weights": "*bf16", "order": "*i64", "starts": "*i32",
                 "tiles": "*i32", "y": "*bf16", "out": "i32", "inner": "i32", "choices": "i32"}
    return [Example(grouped_kernel, {**signature, **dict.fromkeys(blocks, "constexpr")}, blocks,
                    least=(8, 0), aligned=("out", "inner"))]
