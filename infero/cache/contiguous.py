"""The simplest KV cache: one contiguous stretch of slots for each request.

Chapters 1 to 6 use it as given; chapter 7 has the reader write it and chapter 8 replaces it by
pages. In the terms of `Batch` it is a paged cache whose blocks are as long as the longest
request, so that every request owns exactly one block and nothing else need change.
"""

from __future__ import annotations

import torch

from infero.cache import kv
from infero.cache.kv import KVCache
from infero.errors import PromptError
from infero.model import Batch, ModelConfig

__all__ = ["KVCache", "allocate", "next_batch"]


def allocate(config: ModelConfig, requests: int, max_len: int, dtype: torch.dtype,
             device: torch.device | str) -> KVCache:
    """A cache for `requests` requests of at most `max_len` tokens each."""
    return kv.empty(config, requests, max_len, dtype, device)


def next_batch(cache: KVCache, starts: list[int], query_lens: list[int]) -> Batch:
    """The Batch of a step in which request r adds `query_lens[r]` tokens after `starts[r]`.

    Request r owns block r. Raises PromptError where a request would outgrow its block.
    """
    device, size = cache.k.device, cache.block_size
    ends = [s + n for s, n in zip(starts, query_lens, strict=True)]
    if max(ends) > size:
        raise PromptError(
            f"A request would reach {max(ends)} tokens, but the cache has room for {size} "
            "each; allocate it with a larger max_len."
        )
    positions = torch.cat(
        [torch.arange(s, e, device=device) for s, e in zip(starts, ends, strict=True)]
    )
    blocks = torch.arange(len(starts), device=device)
    first_slot = torch.repeat_interleave(
        blocks * size, torch.tensor(query_lens, device=device), output_size=sum(query_lens)
    )
    return Batch(positions, first_slot + positions, blocks[:, None], size, query_lens, ends)
