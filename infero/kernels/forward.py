"""The forward pass of `infero/model.py` in six launches a layer, for a GPU.

    1  norm, then queries, keys and values        products.linear(norm=...)
    2  RoPE, and keys and values into the cache   rotary.rotate_and_write
    3  attention over the paged cache             decode.attention (flash.attention for a chunk)
    4  output projection, added to x              products.linear(residual=...)
    5  norm, gate and up, SwiGLU                  products.linear(norm=..., swiglu=True)
    6  down projection, added to x                products.linear(residual=...)

For more than a few rows a product is cuBLAS's, and norm and activation are launches of their own.
Nothing here waits for the GPU, asks it for a number or depends on a length that only the host
knows, so the pass over single new tokens can be captured in a CUDA graph. Chapter 16 explains why
the number of launches matters, chapters 13 to 15 each kernel.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infero import kernels
from infero.kernels import decode, embeddings, flash, products, rotary

if TYPE_CHECKING:
    from infero.cache.kv import KVCache
    from infero.model import Batch, Model

MIXED_SPLITS = 4  # of a decoding request beside a prefill, which takes longer anyway


@dataclass
class Layout:
    """A batch as the attention kernels see it: lengths on the device, two kinds of requests.

    The first `few` requests bring `queries` new tokens each and go to the kernel for decoding; the
    others bring any number and go to FlashAttention. `splits` is how many programs share one
    request's context. `sources` and `previous`: token i is previous[sources[i]] where that is not
    negative: a token that the step before drew, and that the host has not seen.
    """

    contexts: Tensor  # [few] int32
    few: int
    queries: int = 1
    splits: int = 1
    longer: Tensor | None = None  # [requests - few] int32, contexts of the others
    query_starts: Tensor | None = None  # [requests - few + 1] int32, their rows
    longest_query: int = 0
    sources: Tensor | None = None  # [tokens] int32
    previous: Tensor | None = None  # [rows] int64


def layout(batch: Batch, heads: int, kv_heads: int) -> Layout:
    """The layout that a step's maker left in the batch, or one made from its lengths."""
    found = batch.memo.get("layout")
    if found is None:
        found = batch.memo["layout"] = made(batch, heads, kv_heads)
    return found


def made(batch: Batch, heads: int, kv_heads: int, sent: list[Tensor] | None = None) -> Layout:
    """From the host's lengths; `sent`: what `to_send` lists, if it is on the device already."""
    lens, device = batch.query_lens, batch.positions.device
    few, queries = leading(lens, heads // kv_heads)
    if sent is None:
        sent = [torch.tensor(numbers, dtype=torch.int32).to(device, non_blocking=True)
                for numbers in to_send(lens, batch.context_lens, heads // kv_heads)]
    splits = MIXED_SPLITS
    if few == len(lens):  # a power of four: few variants of the kernel
        splits = decode.splits_for(few, kv_heads, max(batch.context_lens), device)
        splits = 4 ** -(-(splits - 1).bit_length() // 2)
    contexts, longer, starts = sent
    return Layout(contexts, few, queries, splits, longer, starts, max(lens[few:], default=0))


def to_send(query_lens: list[int], context_lens: list[int], group: int) -> list[list[int]]:
    """Contexts of the requests at the front; of the others, with where their queries start."""
    few, _ = leading(query_lens, group)
    return [context_lens[:few], context_lens[few:],
            [*itertools.accumulate(query_lens[few:], initial=0)]]


def leading(query_lens: list[int], group: int) -> tuple[int, int]:
    """How many requests at the front bring equally few tokens, and how many tokens those are.

    None with `deterministic`: the two kernels add in different orders, and which tokens come in a
    chunk of their own depends on what else runs. One kernel for all gives the same bits.
    """
    n = query_lens[0] if query_lens else 0
    if n == 0 or n * group > 64 or kernels.options().deterministic:
        return 0, 1
    few = 1
    while few < len(query_lens) and query_lens[few] == n:
        few += 1
    return few, n


def attend(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float, window: int | None,
           out: Tensor | None = None) -> Tensor:
    """q: [tokens, heads, dim]; k, v: one layer of the cache. Returns [tokens, heads, dim]."""
    where = layout(batch, q.shape[1], k.shape[1])
    if out is None:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    tables, size = pages(batch)
    few, rows = where.few, where.few * where.queries
    if few:
        decode.attention(q[:rows], k, v, tables[:few], where.contexts, size, scale, window,
                         queries=where.queries, splits=where.splits, out=out[:rows],
                         deterministic=kernels.options().deterministic)
    if where.longer is not None and where.query_starts is not None and rows < len(q):
        flash.attention(q[rows:], k, v, where.query_starts, where.longer, tables[few:], size,
                        scale, window, longest_query=where.longest_query, out=out[rows:])
    return out


def pages(batch: Batch) -> tuple[Tensor, int]:
    """Block tables and block size as the kernels take them: a block of 2**n slots.

    A contiguous cache's blocks are as long as a request may get. Such a block is several blocks of
    its largest power of two to them.
    """
    size = batch.block_size
    page = size & -size
    if page == size:
        return batch.block_tables, size
    found = batch.memo.get("pages")
    if found is None:
        parts = torch.arange(size // page, device=batch.block_tables.device)
        found = (batch.block_tables[:, :, None] * (size // page) + parts).flatten(1)
        batch.memo["pages"] = found
    return found, page


def usable(model: Model) -> bool:
    """Whether this pass computes what the model's own would: on a GPU, with nothing replaced."""
    device = model.device
    return (kernels.options().fuse and kernels.options().kernels != "steps"
            and kernels.attends(device) and not kernels.learners(device))


@torch.inference_mode()
def forward(model: Model, tokens: Tensor, batch: Batch, cache: KVCache,
            rows: Tensor | None = None) -> Tensor:
    """As `infero.model.forward`; logits [rows, vocab] are in the model's dtype."""
    c, same = model.config, kernels.options().deterministic
    heads, kv_heads, dim, eps = c.num_heads, c.num_kv_heads, c.head_dim, c.norm_eps
    where = layout(batch, heads, kv_heads)
    x = embeddings.gather(tokens, model.embedding, where.sources, where.previous)
    for i, layer in enumerate(model.layers):
        k, v = cache.k[i], cache.v[i]
        qkv = products.linear(x, layer.qkv, layer.qkv_bias, norm=layer.input_norm, eps=eps,
                              deterministic=same)
        q = rotary.rotate_and_write(qkv, batch.positions, batch.slots, model.inv_freq, k, v,
                                    heads, kv_heads, layer.q_norm, layer.k_norm, eps)
        mixed = attend(q, k, v, batch, dim**-0.5, c.window(i))
        x = products.linear(mixed.view(-1, heads * dim), layer.o, layer.o_bias, residual=x,
                            deterministic=same)
        h = products.linear(x, layer.gate_up, layer.gate_up_bias, norm=layer.post_norm, eps=eps,
                            swiglu=True, deterministic=same)
        x = products.linear(h, layer.down, layer.down_bias, residual=x, deterministic=same)
    if rows is not None:
        x = x[rows]
    return products.linear(x, model.head, norm=model.final_norm, eps=eps, deterministic=same)
