"""What `infero tune` may try for the attention kernels, and the inputs it tries it on.

Decode attention is timed at 32 requests of 4,096 tokens, FlashAttention at one prompt of 4,096,
both with pages of 16 in random order. The first candidate of a class is the kernel's own default.
See `infero/tune.py`; chapter 14 says what each choice trades.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from infero import tune
from infero.kernels import decode, flash

PAGE = 16
CONTEXT = 4096
KV_HEADS = 8


def pages(requests: int, device: torch.device) -> Tensor:
    """Block tables [requests, blocks] over all pages of a cache, in random order."""
    order = torch.randperm(requests * CONTEXT // PAGE, device=device)
    return order.view(requests, -1).int()


def unlike(default: Any, others: list[Any]) -> list[tune.Config]:
    """The default first, then the others, as dictionaries."""
    return [dataclasses.asdict(c) for c in [default, *(o for o in others if o != default)]]


def decoding() -> list[tune.Tunable]:
    """Decode attention, by head dim and query heads a KV head."""
    found = []
    for dim, group in ((64, 4), (128, 2), (128, 4), (256, 4)):
        others = [decode.Config(block, warps, stages) for block, warps, stages in
                  ((64, 2, 3), (64, 4, 3), (64, 4, 4), (32, 2, 3), (32, 2, 4), (32, 4, 4),
                   (128, 4, 2), (32, 4, 2), (16, 1, 6))]

        def prepare(device: torch.device, dim: int = dim, group: int = group
                    ) -> Callable[[tune.Config], Callable[[], Tensor]]:
            requests = 32
            tables = pages(requests, device)
            k, v = (torch.randn(tables.numel() * PAGE, KV_HEADS, dim, device=device,
                                dtype=torch.bfloat16) for _ in range(2))
            q = torch.randn(requests, KV_HEADS * group, dim, device=device, dtype=k.dtype)
            contexts = torch.full((requests,), CONTEXT, dtype=torch.int32, device=device)
            splits = decode.splits_for(requests, KV_HEADS, CONTEXT, device)
            return lambda config: lambda: decode.attention(
                q, k, v, tables, contexts, PAGE, dim**-0.5, splits=splits,
                config=decode.Config(**config))

        found.append(tune.Tunable(
            "decode.attention", decode.shape_class(dim, torch.bfloat16, group),
            unlike(decode.default(dim, 2), others), prepare,
            2.0 * 2 * 32 * CONTEXT * KV_HEADS * dim))
    return found


def prefilling() -> list[tune.Tunable]:
    """FlashAttention over pages, by head dim."""
    found = []
    for dim in (64, 128, 256):
        others = [flash.Config(*sizes) for sizes in
                  ((128, 64, 8, 3), (128, 64, 8, 2), (128, 128, 8, 2), (128, 32, 8, 3),
                   (64, 64, 4, 2), (64, 64, 4, 3), (64, 32, 4, 3), (128, 64, 4, 3))]

        def prepare(device: torch.device, dim: int = dim
                    ) -> Callable[[tune.Config], Callable[[], Tensor]]:
            tables, heads = pages(1, device), 4 * KV_HEADS
            k, v = (torch.randn(CONTEXT, KV_HEADS, dim, device=device, dtype=torch.bfloat16)
                    for _ in range(2))
            q = torch.randn(CONTEXT, heads, dim, device=device, dtype=k.dtype)
            contexts = torch.full((1,), CONTEXT, dtype=torch.int32, device=device)
            starts = torch.tensor([0, CONTEXT], dtype=torch.int32, device=device)
            return lambda config: lambda: flash.attention(
                q, k, v, starts, contexts, tables, PAGE, dim**-0.5, longest_query=CONTEXT,
                config=flash.Config(**config))

        found.append(tune.Tunable(
            "flash.attention", flash.shape_class(dim, torch.bfloat16, True),
            unlike(flash.default(dim, 2), others), prepare))
    return found
