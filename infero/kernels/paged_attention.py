"""Attention of a ragged batch over a paged cache, by PyTorch's fused attention.

What a step needs is planned once and used by every layer: which requests bring equally few tokens
and are attended together, which bring a long chunk, and where each finds its keys. Keys that lie
side by side are read in place, others are gathered, whole blocks at a time. Chapter 14 replaces
this by a kernel that follows the block table itself.

The queries of one KV head become the rows of one small matrix, so that keys and values are not
repeated for the query heads that share them (GQA, arXiv:2305.13245).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.kernels import varlen

if TYPE_CHECKING:
    from infero.model import Batch

FEW = 8  # new tokens a request, up to which requests are attended together
SPARE = 256  # slots of padding that cost no more than one group more
CHUNK = 512  # query rows attended at once: bounds the mask of a long prompt


@dataclass
class Keys:
    """Where some requests' keys are: `length` slots each, the last ones perhaps padding."""

    where: slice | Tensor  # slots side by side of one request, or blocks, request after request
    requests: int
    length: int

    def read(self, cache: Tensor, size: int) -> Tensor:
        """cache: one layer [slots, kv_heads, dim] -> [requests, kv_heads, length, dim]."""
        if isinstance(self.where, slice):
            return cache[self.where].transpose(0, 1)[None]
        slots, kv_heads, dim = cache.shape
        if self.length <= size:  # the beginning of one block each
            pages = cache.view(slots // size, size, kv_heads, dim)[:, : self.length]
            return pages.index_select(0, self.where).transpose(1, 2)
        pages = cache.view(slots // size, size * kv_heads * dim).index_select(0, self.where)
        return pages.view(self.requests, -1, kv_heads, dim)[:, : self.length].transpose(1, 2)


@dataclass
class Together:
    """Requests that bring `n` tokens each."""

    rows: slice | Tensor  # their tokens
    n: int
    keys: Keys
    mask: Tensor | None  # [requests, 1, n * group, length], 0 or -inf


@dataclass
class Alone:
    """Many new tokens of one request."""

    rows: slice
    keys: Keys
    mask: Tensor | None  # [queries, length], 0 or -inf; None: nothing but the causal triangle


def attend(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float,
           window: int | None) -> Tensor:
    """q: [tokens, heads, dim]; k, v: one layer of the cache, [slots, kv_heads, dim].

    Returns [tokens, heads, dim], equal to `infero.model.attend` up to rounding.
    """
    key = ("attention", window, q.shape[1:], q.dtype)
    work = batch.memo.get(key)
    if work is None:
        work = batch.memo[key] = (varlen.lengths(batch) if varlen.usable(q, batch) else
                                  plan(batch, window, q.dtype, q.shape[1] // k.shape[1]))
    if isinstance(work, varlen.Lengths):
        return varlen.attend(q, k, v, work, batch.block_size, scale, window)
    if len(work) == 1:
        return run(work[0], q, k, v, batch.block_size, scale)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for part in work:
        out[part.rows] = run(part, q[part.rows], k, v, batch.block_size, scale)
    return out


def run(part: Together | Alone, q: Tensor, k: Tensor, v: Tensor, size: int,
        scale: float) -> Tensor:
    """One call of the fused attention: q [tokens of the part, heads, dim], the same shape out."""
    tokens, heads, dim = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    keys, values = part.keys.read(k, size), part.keys.read(v, size)
    if isinstance(part, Alone):  # [group, kv_heads, tokens, dim] over keys shared by the group
        folded = q.view(tokens, kv_heads, group, dim).permute(2, 1, 0, 3)
        keys, values = keys.expand(group, -1, -1, -1), values.expand(group, -1, -1, -1)
        mixed = F.scaled_dot_product_attention(folded, keys, values, part.mask,
                                               is_causal=part.mask is None, scale=scale)
        return mixed.permute(2, 1, 0, 3).reshape(tokens, heads, dim)
    folded, many = q.view(-1, kv_heads, group, dim), part.n > 1
    if many:  # [requests, kv_heads, n * group, dim]
        folded = folded.unflatten(0, (-1, part.n)).transpose(1, 2).flatten(2, 3)
    mixed = F.scaled_dot_product_attention(folded, keys, values, part.mask, scale=scale)
    if many:
        mixed = mixed.unflatten(2, (part.n, group)).transpose(1, 2)
    return mixed.reshape(tokens, heads, dim)


# ---------------------------------------------------------------- the plan of a step


def plan(batch: Batch, window: int | None, dtype: torch.dtype,
         group: int) -> list[Together | Alone]:
    """Who is attended together with whom, and from where; worked out on the host."""
    first_row, found = 0, list[Together | Alone]()
    few: dict[int, list[tuple[int, int, int]]] = {}  # n -> (slots, request, first row)
    for r, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
        if 0 < n <= FEW:
            slots = context - first_seen(context, n, window) // batch.block_size * batch.block_size
            few.setdefault(n, []).append((slots, r, first_row))
        elif n:
            found += alone(batch, r, first_row, window, dtype)
        first_row += n
    for n, requests in few.items():
        for chosen in similar(requests):
            found.append(together(batch, n, chosen, window, dtype, group))
    return found


def first_seen(context: int, n: int, window: int | None) -> int:
    """The first position that the first of the last `n` tokens sees."""
    return 0 if window is None else max(0, context - n + 1 - window)


def similar(requests: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Groups of similar context: a group costs what its longest request costs, for each."""
    groups, kept = list[list[tuple[int, int, int]]](), 0
    for request in sorted(requests, reverse=True):
        slots = request[0]
        if groups:
            longest, count = groups[-1][0][0], len(groups[-1]) + 1
            if longest * count - kept - slots <= SPARE + kept // 4:
                groups[-1].append(request)
                kept += slots
                continue
        groups.append([request])
        kept = slots
    return [sorted(group, key=lambda one: one[1]) for group in groups]


def together(batch: Batch, n: int, chosen: list[tuple[int, int, int]], window: int | None,
             dtype: torch.dtype, group: int) -> Together:
    """The plan of one group; the blocks that its requests read may begin at different places."""
    size, device = batch.block_size, batch.positions.device
    contexts = [batch.context_lens[r] for _, r, _ in chosen]
    ids = [row + i for _, _, row in chosen for i in range(n)]
    rows = consecutive(ids) or sent(ids, device)
    slot = first_slot(batch, chosen[0][1]) if len(chosen) == 1 else None
    if slot is not None:
        low = first_seen(contexts[0], n, window)
        keys = Keys(slice(slot + low, slot + contexts[0]), 1, contexts[0] - low)
        if n == 1:  # it sees them all
            return Together(rows, n, keys, None)
        first = sent([low], device)[:, None]
    else:
        length = max(slots for slots, _, _ in chosen)
        blocks = sent([first_seen(c, n, window) // size for c in contexts], device)
        request = sent([r for _, r, _ in chosen], device)
        column = blocks[:, None] + torch.arange(-(-length // size), device=device)
        column.clamp_(max=batch.block_tables.shape[1] - 1)
        keys = Keys(batch.block_tables[request[:, None], column].flatten(), len(chosen), length)
        first = blocks[:, None] * size
    i = sent(contexts, device)[:, None] - n + torch.arange(n, device=device)
    j = first + torch.arange(keys.length, device=device)
    mask = additive(i.repeat_interleave(group, 1), j[:, None], window, dtype)
    return Together(rows, n, keys, mask[:, None])


def alone(batch: Batch, r: int, row: int, window: int | None, dtype: torch.dtype) -> list[Alone]:
    """The new tokens of one request, CHUNK at a time, each over the keys it may see."""
    n, context, size = batch.query_lens[r], batch.context_lens[r], batch.block_size
    device, slot, found = batch.positions.device, first_slot(batch, r), list[Alone]()
    whole = n == context and (window is None or window >= context)
    for low in range(0, n, n if whole else CHUNK):
        high = n if whole else min(low + CHUNK, n)
        end = context - n + high
        begin = first_seen(end, high - low, window) // size * size
        keys = Keys(batch.block_tables[r, begin // size : -(-end // size)], 1, end - begin)
        if slot is not None:
            keys.where = slice(slot + begin, slot + end)
        mask = None
        if not whole:
            i = torch.arange(end - high + low, end, device=device)
            mask = additive(i, torch.arange(begin, end, device=device), window, dtype)
        found.append(Alone(slice(row + low, row + high), keys, mask))
    return found


def additive(i: Tensor, j: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where a query at position i sees a key at position j, else -inf: [..., queries, keys]."""
    i, hidden = i[..., None], j > i[..., None]
    if window is not None:
        hidden |= j <= i - window
    return torch.zeros(hidden.shape, dtype=dtype, device=i.device).masked_fill_(hidden, -math.inf)


def sent(numbers: list[int], device: torch.device) -> Tensor:
    """A tensor on the device; the host does not wait for the copy."""
    return torch.tensor(numbers).to(device, non_blocking=True)


def consecutive(numbers: list[int]) -> slice | None:
    """The slice that these numbers make up, if they follow each other."""
    first, end = numbers[0], numbers[0] + len(numbers)
    return slice(first, end) if numbers == list(range(first, end)) else None


def first_slot(batch: Batch, r: int) -> int | None:
    """The first slot of a request whose slots follow each other; None if not, or unknown."""
    if batch.tables_on_host is None:
        return None
    blocks = batch.tables_on_host[r][: -(-batch.context_lens[r] // batch.block_size)]
    return blocks[0] * batch.block_size if consecutive(blocks) else None
