"""Attention of a ragged batch over a paged cache, by PyTorch's fused attention.

What a step needs is planned once and used by every layer (`Batch.memo`): which requests decode one
token, and can be attended together, which bring a chunk, and where each finds its keys. A request
whose blocks follow each other is read in place; the others' blocks are gathered, whole blocks at a
time. Chapter 14 replaces this by a kernel that follows the block table itself.

The queries of one KV head are laid out as rows of one small matrix, so that keys and values are
never repeated for the query heads that share them (GQA, arXiv:2305.13245).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from infero.model import Batch

CHUNK = 512  # query rows attended at once: bounds the mask of a long prompt
FULL_ENOUGH = 0.75  # a group of decoding requests is at least this full of real keys


@dataclass
class Decode:
    """Requests that bring one token each, attended together over equally many slots."""

    rows: slice | Tensor  # their tokens
    blocks: Tensor | slice  # [requests * blocks] ids to gather, or the slots of one request
    length: int  # slots a request, the last ones padding
    mask: Tensor | None  # [requests, 1, 1, length] bool, true where there is a key to see


@dataclass
class Chunk:
    """Several new tokens of one request and the keys they may see."""

    rows: slice  # the tokens
    blocks: Tensor | slice  # [blocks] ids to gather, or slots
    length: int  # slots that are keys
    causal: bool  # no mask is needed but the triangle from the first key on
    mask: Tensor | None  # [queries, length] bool


def attend(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float,
           window: int | None) -> Tensor:
    """q: [tokens, heads, dim]; k, v: one layer of the cache, [slots, kv_heads, dim].

    Returns [tokens, heads, dim], equal to `infero.model.attend` up to rounding.
    """
    tokens, heads, dim = q.shape
    kv_heads, size = k.shape[1], batch.block_size
    group = heads // kv_heads
    work = batch.memo.get(("attention", window))
    if work is None:
        work = batch.memo["attention", window] = plan(batch, window)
    out = torch.empty(tokens, heads, dim, dtype=q.dtype, device=q.device)
    for part in work:
        keys, values = (read(t, part.blocks, size) for t in (k, v))  # [slots, kv_heads, dim]
        if isinstance(part, Decode):
            requests = keys.shape[0] // part.length
            keys, values = (t.view(requests, part.length, kv_heads, dim).transpose(1, 2)
                            for t in (keys, values))
            folded = q[part.rows].reshape(requests, kv_heads, group, dim)
            mixed = F.scaled_dot_product_attention(folded, keys, values, part.mask, scale=scale)
            out[part.rows] = mixed.reshape(requests, heads, dim)
        else:
            n = part.rows.stop - part.rows.start
            folded = q[part.rows].view(n, kv_heads, group, dim).permute(2, 1, 0, 3)
            keys, values = (t[: part.length].transpose(0, 1).expand(group, -1, -1, -1)
                            for t in (keys, values))
            mixed = F.scaled_dot_product_attention(folded, keys, values, part.mask,
                                                   is_causal=part.causal, scale=scale)
            out[part.rows].view(n, kv_heads, group, dim).copy_(mixed.permute(2, 1, 0, 3))
    return out


def read(cache: Tensor, blocks: Tensor | slice, size: int) -> Tensor:
    """Slots of one layer of the cache: a view, or whole blocks copied side by side."""
    if isinstance(blocks, slice):
        return cache[blocks]
    slots, kv_heads, dim = cache.shape
    paged = cache.view(slots // size, size * kv_heads * dim)
    return paged.index_select(0, blocks).view(-1, kv_heads, dim)


# ---------------------------------------------------------------- the plan of a step


def plan(batch: Batch, window: int | None) -> list[Decode | Chunk]:
    """Who is attended together with whom, and from where: worked out on the host."""
    starts, start = list[int](), 0
    for n in batch.query_lens:
        starts.append(start)
        start += n
    alone = [r for r, n in enumerate(batch.query_lens) if n == 1]
    found: list[Decode | Chunk] = [*decodes(batch, alone, starts, window)]
    for r, n in enumerate(batch.query_lens):
        if n > 1:
            found += chunks(batch, r, starts[r], window)
    return found


def decodes(batch: Batch, requests: list[int], starts: list[int],
            window: int | None) -> list[Decode]:
    """Requests of one token each in groups of similar context."""
    size, device = batch.block_size, batch.positions.device
    spans = []  # (blocks, first block, request)
    for r in requests:
        context = batch.context_lens[r]
        first = 0 if window is None else max(0, context - window) // size
        spans.append((-(-context // size) - first, first, r))
    spans.sort(reverse=True)
    found = []
    while spans:
        most, total, count = spans[0][0], 0, 0
        for blocks, _, _ in spans:
            if total + blocks < FULL_ENOUGH * most * (count + 1):
                break
            total, count = total + blocks, count + 1
        group, spans = spans[:count], spans[count:]
        found.append(decode_group(batch, group, starts, window, device))
    return found


def decode_group(batch: Batch, group: list[tuple[int, int, int]], starts: list[int],
                 window: int | None, device: torch.device) -> Decode:
    """One group; its requests' first slots that count may lie in different blocks."""
    size, most = batch.block_size, group[0][0]
    ids = [starts[r] for _, _, r in group]
    rows: slice | Tensor
    if ids == list(range(ids[0], ids[0] + len(ids))):
        rows = slice(ids[0], ids[0] + len(ids))
    else:
        rows = torch.tensor(ids, device=device)
    if len(group) == 1 and (where := in_place(batch, group[0][2])) is not None:
        r = group[0][2]
        low = 0 if window is None else max(0, batch.context_lens[r] - window)
        length = batch.context_lens[r] - low
        return Decode(rows, slice(where + low, where + low + length), length, None)
    request = torch.tensor([[r] for _, _, r in group], device=device)
    first = torch.tensor([[low] for _, low, _ in group], device=device)
    column = (first + torch.arange(most, device=device)).clamp_(
        max=batch.block_tables.shape[1] - 1)
    blocks = batch.block_tables[request, column].flatten()
    context = torch.tensor([[batch.context_lens[r]] for _, _, r in group], device=device)
    position = first * size + torch.arange(most * size, device=device)
    seen = position < context
    if window is not None:
        seen &= position >= context - window
    return Decode(rows, blocks, most * size, seen[:, None, None])


def chunks(batch: Batch, r: int, start: int, window: int | None) -> list[Chunk]:
    """The new tokens of one request, CHUNK at a time, each over the keys it may see."""
    n, context, size = batch.query_lens[r], batch.context_lens[r], batch.block_size
    device, where = batch.positions.device, in_place(batch, r)
    if n == context and (window is None or window >= context):
        blocks = slice(where, where + context) if where is not None else (
            batch.block_tables[r, : -(-context // size)])
        return [Chunk(slice(start, start + n), blocks, context, True, None)]
    found = []
    for low in range(0, n, CHUNK):
        high = min(low + CHUNK, n)
        i = torch.arange(context - n + low, context - n + high, device=device)[:, None]
        end = context - n + high
        begin = 0 if window is None else max(0, context - n + low + 1 - window) // size * size
        j = torch.arange(begin, end, device=device)
        mask = j <= i if window is None else (j <= i) & (j > i - window)
        blocks = slice(where + begin, where + end) if where is not None else (
            batch.block_tables[r, begin // size : -(-end // size)])
        found.append(Chunk(slice(start + low, start + high), blocks, end - begin, False, mask))
    return found


def in_place(batch: Batch, r: int) -> int | None:
    """The first slot of a request whose slots follow each other, or None."""
    table = batch.tables_on_host
    if table is None:
        return None
    blocks = table[r][: -(-batch.context_lens[r] // batch.block_size)]
    if blocks == list(range(blocks[0], blocks[0] + len(blocks))):
        return blocks[0] * batch.block_size
    return None
