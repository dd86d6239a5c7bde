"""The tensors that hold keys and values, whatever decides which token lives in which slot.

A slot holds one token's keys and values in every layer. Chapter 7 explains the layout and has the
reader write `write`; chapters 7 and 8 hand the slots out (`contiguous.py`, `pool.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from infero.model import ModelConfig


@dataclass
class KVCache:
    """Keys and values of every layer: k and v are [layers, slots, kv_heads, dim].

    Slots come in blocks of `block_size`: block b owns slots b * block_size and following.
    """

    k: Tensor
    v: Tensor
    block_size: int

    @property
    def bytes(self) -> int:
        return 2 * self.k.numel() * self.k.element_size()


def empty(config: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype,
          device: torch.device | str) -> KVCache:
    """A cache of `num_blocks` blocks, filled with zeros: what was never written must be finite."""
    shape = (config.num_layers, num_blocks * block_size, config.num_kv_heads, config.head_dim)
    return KVCache(torch.zeros(shape, dtype=dtype, device=device),
                   torch.zeros(shape, dtype=dtype, device=device), block_size)


def write(cache: KVCache, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
    """Store the new tokens' keys and values of one layer in their slots, in place.

    slots: [tokens] int64; k, v: [tokens, kv_heads, dim]. Token t goes to slot slots[t] of
    cache.k[layer] and cache.v[layer]; every other slot and layer stays as it is.
    """
    cache.k[layer].index_copy_(0, slots, k)
    cache.v[layer].index_copy_(0, slots, v)


def copy_blocks(source: KVCache, target: KVCache, pairs: Sequence[tuple[int, int]]) -> None:
    """Copy whole blocks, (source block, target block) each, in every layer.

    Within one cache it serves copy-on-write, between device and host the host tier. Pairs are
    copied in their order.
    """
    size = source.block_size
    for tensors in ((source.k, target.k), (source.v, target.v)):
        a, b = (t.unflatten(1, (-1, size)) for t in tensors)  # [layers, blocks, size, heads, dim]
        for read, written in pairs:
            b[:, written].copy_(a[:, read], non_blocking=True)
