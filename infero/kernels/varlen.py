"""Attention of a whole ragged batch in one launch on a GPU: PyTorch's variable-length flash
attention.

All requests' blocks are gathered end to end, without padding between requests; the kernel is told
where each begins and how many of its slots count. Decoding, prefill and any mixture are one call
(FlashAttention-2, arXiv:2307.08691). It needs 16-bit numbers and compute capability 8.0; elsewhere
`paged_attention.py` does the work. The gather reads and writes the context once more than
necessary: chapter 14's kernel does without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from infero.model import Batch


@dataclass
class Lengths:
    """What the kernel is told, the same in every layer."""

    blocks: Tensor  # [blocks] ids, request after request
    query_starts: Tensor  # [requests + 1] int32, rows of q
    key_starts: Tensor  # [requests + 1] int32, slots of the gathered keys
    contexts: Tensor  # [requests] int32, how many of each request's slots count
    longest_query: int
    longest_context: int


def usable(q: Tensor, batch: Batch) -> bool:
    """Whether the kernel takes these queries; a contiguous cache is read in place instead."""
    return (q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0
            and q.shape[-1] <= 256 and batch.block_tables.shape[1] > 1
            and torch.cuda.get_device_capability(q.device) >= (8, 0))


def lengths(batch: Batch) -> Lengths:
    """Worked out on the host, and copied to the GPU without waiting for it."""
    device, width = batch.block_tables.device, batch.block_tables.shape[1]
    contexts = torch.tensor(batch.context_lens)
    counts = (contexts + batch.block_size - 1) // batch.block_size
    ends = counts.cumsum(0)
    row = torch.repeat_interleave(torch.arange(len(counts)), counts)
    index = row * width + torch.arange(len(row)) - (ends - counts)[row]
    starts = torch.zeros(2, len(counts) + 1, dtype=torch.int32)
    starts[0, 1:] = torch.tensor(batch.query_lens).cumsum(0)
    starts[1, 1:] = ends * batch.block_size
    blocks = batch.block_tables.flatten().index_select(0, index.to(device, non_blocking=True))
    query_starts, key_starts = starts.to(device, non_blocking=True)
    return Lengths(blocks, query_starts, key_starts,
                   contexts.int().to(device, non_blocking=True),
                   max(batch.query_lens), max(batch.context_lens))


def attend(q: Tensor, k: Tensor, v: Tensor, told: Lengths, block_size: int, scale: float,
           window: int | None) -> Tensor:
    """q: [tokens, heads, dim]; k, v: one layer of the cache, [slots, kv_heads, dim]."""
    kv_heads, dim = k.shape[1:]
    keys, values = (
        t.view(-1, block_size * kv_heads * dim).index_select(0, told.blocks).view(-1, kv_heads, dim)
        for t in (k, v))
    return torch.ops.aten._flash_attention_forward(
        q, keys, values, told.query_starts, told.key_starts, told.longest_query,
        told.longest_context, 0.0, True, False, scale=scale,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0, seqused_k=told.contexts)[0]
