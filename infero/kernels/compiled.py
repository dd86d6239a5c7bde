"""The decode step by torch.compile: chapter 1's plain functions, fused by Inductor.

The other way to few launches: nobody writes a kernel. Dynamo traces one transformer block with the
plain functions of `infero/model.py`, Inductor fuses norms, RoPE, the write into the cache and the
activation around the matrix products (Ansel et al., ASPLOS 2024), and the one program serves all
layers, because weights and cache come in as arguments. Attention over the paged cache is a custom
operator, opaque to the compiler, so that the trace is whole (`fullgraph=True`) and no length is
ever read by the host: what is compiled may be captured in a CUDA graph. Chapter 16 explains it.

Steps that bring prompts run as usual. `EngineConfig.compile` chooses this module.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import model as model_module
from infero.errors import ConfigError

if TYPE_CHECKING:
    from infero.cache.kv import KVCache
    from infero.model import Batch, Layer, Model, ModelConfig


# ---------------------------------------------------------------- attention, opaque to the compiler


def paged_attention(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, contexts: Tensor,
                    block_size: int, scale: float, window: int | None = None, queries: int = 1
                    ) -> Tensor:
    """Decode attention over the paged cache; shapes depend on the buffers, never on the lengths.

    q: [requests * queries, heads, dim], the newest tokens of each request; k, v: one layer of the
    cache, [slots, kv_heads, dim]; tables: [requests, width]; contexts: [requests] on the device.
    Every request reads width * block_size slots and masks what is not its own: wasteful, and right
    for whatever lengths a graph is replayed with. A row with context 0 gives zeros.
    """
    requests, (heads, dim), kv_heads = len(tables), q.shape[1:], k.shape[1]
    inside = torch.arange(block_size, device=q.device)
    slots = (tables[:, :, None].long() * block_size + inside).flatten(1)  # [requests, width * size]
    keys, values = k[slots].float(), v[slots].float()  # [requests, slots, kv_heads, dim]
    j = torch.arange(slots.shape[1], device=q.device)
    i = contexts[:, None] - queries + torch.arange(queries, device=q.device)  # [requests, queries]
    seen = j <= i[..., None]
    if window is not None:
        seen &= j > i[..., None] - window
    grouped = q.float().view(requests, queries, kv_heads, heads // kv_heads, dim)
    scores = torch.einsum("rqhgd,rjhd->rhgqj", grouped, keys) * scale
    scores = scores.masked_fill(~seen[:, None, None], -math.inf)
    probs = scores.softmax(-1).masked_fill(~seen[:, None, None], 0)
    values = values.masked_fill(~seen.any(1)[:, :, None, None], 0)  # what a former owner left
    mixed = torch.einsum("rhgqj,rjhd->rqhgd", probs, values)
    return mixed.reshape(q.shape).to(q.dtype)


@torch.library.custom_op("infero::paged_decode", mutates_args=())
def paged_decode(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, contexts: Tensor, block_size: int,
                 scale: float, window: int | None, queries: int, splits: int) -> Tensor:
    """Chapter 14's kernel as an operator that a compiler takes as it is."""
    if q.is_cuda:
        from infero.kernels import decode

        return decode.attention(q, k, v, tables, contexts, block_size, scale, window,
                                queries=queries, splits=splits)
    return paged_attention(q, k, v, tables, contexts, block_size, scale, window, queries)


@paged_decode.register_fake
def _(q: Tensor, *_rest: Any) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


# ---------------------------------------------------------------- what is compiled


def linear(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """A plain product; int8 weights are widened on their way in, which Inductor fuses."""
    if isinstance(weight, Tensor):
        return F.linear(x, weight, bias)
    y = F.linear(x, weight.values.to(x.dtype)) * weight.scales.to(x.dtype)
    return y if bias is None else y + bias


def attention_input(layer: Layer, config: ModelConfig, x: Tensor, positions: Tensor,
                    inv_freq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q [tokens, heads, dim] and k, v [tokens, kv_heads, dim] of one layer, rotated."""
    heads, kv_heads, eps = config.num_heads, config.num_kv_heads, config.norm_eps
    h = model_module.rms_norm(x, layer.input_norm, eps)
    qkv = linear(h, layer.qkv, layer.qkv_bias).view(-1, heads + 2 * kv_heads, config.head_dim)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
    if layer.q_norm is not None and layer.k_norm is not None:
        q = model_module.rms_norm(q, layer.q_norm, eps)
        k = model_module.rms_norm(k, layer.k_norm, eps)
    return (model_module.rope(q, positions, inv_freq), model_module.rope(k, positions, inv_freq), v)


@dataclass
class Places:
    """Where a step's rows are written, worked out once for all layers.

    Row t's keys and values go to slot slots[t], from row rows[t]. A padded row repeats the write of
    a live one, so that shapes are fixed, the host reads nothing, and the bytes are the same whoever
    comes last. With no live row at all (`alive` is false) what is there is written again.
    """

    rows: Tensor  # [tokens] int64
    slots: Tensor  # [tokens] int64
    alive: Tensor  # [] bool


def places_of(slots: Tensor) -> Places:
    """slots: [tokens]; a padded row has slot -1."""
    live = slots >= 0
    rows = torch.arange(len(slots), device=slots.device)
    rows = torch.where(live, rows, live.int().argmax())
    return Places(rows, slots[rows].clamp(min=0).long(), live.any())


def write(cache: Tensor, places: Places, new: Tensor) -> None:
    """Store new [tokens, kv_heads, dim] in one layer of the cache, in place."""
    kept = torch.where(places.alive, new[places.rows], cache[places.slots])
    cache.index_copy_(0, places.slots, kept)


def block(layer: Layer, config: ModelConfig, x: Tensor, positions: Tensor, inv_freq: Tensor,
          places: Places, k_cache: Tensor, v_cache: Tensor, tables: Tensor, contexts: Tensor,
          block_size: int, window: int | None, queries: int, splits: int) -> Tensor:
    """One transformer block, x [tokens, hidden] in and out, as `infero.model.block`."""
    q, k, v = attention_input(layer, config, x, positions, inv_freq)
    write(k_cache, places, k)
    write(v_cache, places, v)
    mixed = paged_decode(q.contiguous(), k_cache, v_cache, tables, contexts, block_size,
                         config.head_dim**-0.5, window, queries, splits)
    x = x + linear(mixed.reshape(len(x), -1), layer.o, layer.o_bias)
    h = model_module.rms_norm(x, layer.post_norm, config.norm_eps)
    gate, up = linear(h, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
    return x + linear(model_module.swiglu(gate, up), layer.down, layer.down_bias)


def ending(x: Tensor, norm: Tensor, head: Any, eps: float) -> Tensor:
    """Final norm and head: logits [rows, vocab]."""
    return linear(model_module.rms_norm(x, norm, eps), head, None)


@functools.cache
def compiled(function: Callable[..., Tensor], cuda: bool) -> Callable[..., Tensor]:
    """The function, compiled when it is first called: once for one row, once for any number.

    `coordinate_descent_tuning` also turns products of one row into reductions, which Inductor can
    fuse with what surrounds them and tune.
    """
    options: dict[str, Any] = {"coordinate_descent_tuning": True} if cuda else {}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


# ---------------------------------------------------------------- the step


def decodes(batch: Batch) -> bool:
    """Whether every request brings one new token. Others bring prompts, of any length: each length
    would be compiled anew."""
    return bool(batch.query_lens) and all(n == 1 for n in batch.query_lens)


def refuse(model: Model) -> None:
    """ConfigError if the weights have a format that the compiled step does not read."""
    layer = model.layers[0]
    for weight in (model.head, layer.qkv, layer.o, layer.gate_up, layer.down):
        values = getattr(weight, "values", None)
        if not isinstance(weight, Tensor) and getattr(values, "dtype", None) != torch.int8:
            raise ConfigError(f"compile=True reads plain and int8 weights; this model has "
                              f"{type(weight).__name__}: leave compile False, its own kernels are "
                              "faster.")


@torch.inference_mode()
def forward(model: Model, tokens: Tensor, batch: Batch, cache: KVCache,
            rows: Tensor | None = None) -> Tensor:
    """As `infero.model.forward`, with logits in the model's dtype; prompts go there."""
    if not decodes(batch):
        return model_module.forward(model, tokens, batch, cache, rows)
    refuse(model)
    (contexts, splits), tables = _lengths(model, batch), batch.block_tables.int()
    if tables.shape[1] == 1:  # a length of 1 would be compiled on its own
        tables = F.pad(tables, (0, 1))
    return step(model, F.embedding(tokens, model.embedding), batch.positions, batch.slots, tables,
                contexts, cache, splits=splits, rows=rows)


def _lengths(model: Model, batch: Batch) -> tuple[Tensor, int]:
    """Contexts on the device, and how many programs share one request's context."""
    where = batch.memo.get("layout")
    if where is None and not batch.positions.is_cuda:
        return torch.tensor(batch.context_lens, dtype=torch.int32), 1
    if where is None:
        from infero.kernels import forward

        where = forward.layout(batch, model.config.num_heads, model.config.num_kv_heads)
    return where.contexts.int(), where.splits


def step(model: Model, x: Tensor, positions: Tensor, slots: Tensor, tables: Tensor,
         contexts: Tensor, cache: KVCache, *, queries: int = 1, splits: int = 1,
         rows: Tensor | None = None, plain: bool = False) -> Tensor:
    """A decode step whose every length is on the device: logits [rows, vocab].

    x: [tokens, hidden], rows of the embedding; positions, slots: [tokens], a padded row has slot
    -1; tables: [requests, width]; contexts: [requests]. `plain` runs the same code uncompiled.
    """
    config, cuda = model.config, x.is_cuda
    one = block if plain else compiled(block, cuda)
    last = ending if plain else compiled(ending, cuda)
    places = places_of(slots)
    for t in (positions, places.rows, places.slots, tables, contexts):
        _any_rows(t)
    for i, layer in enumerate(model.layers):
        x = one(layer, config, _any_rows(x), positions, model.inv_freq, places,
                _any_rows(cache.k[i]), _any_rows(cache.v[i]), tables, contexts, cache.block_size,
                config.window(i), queries, splits)
    x = x if rows is None else x[rows]
    return last(_any_rows(x), model.final_norm, model.head, config.norm_eps)


def _any_rows(t: Tensor) -> Tensor:
    """Mark the axes whose lengths may change, so that no bucket compiles anew."""
    if t.shape[0] > 1 or (t.dim() == 2 and t.dtype == torch.int32):
        torch._dynamo.maybe_mark_dynamic(t, list(range(t.dim())) if t.dtype == torch.int32 else 0)
    return t


@contextmanager
def no_recompilation() -> Iterator[None]:
    """Inside, anything that would compile again is an error: for tests and benchmarks."""
    with torch.compiler.set_stance("fail_on_recompile"):
        yield
