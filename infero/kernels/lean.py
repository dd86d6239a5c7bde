"""The forward pass of `infero/model.py` for a CPU, in as few calls as PyTorch allows.

With 4-bit weights a token of a small model takes a few milliseconds, and the two dozen small
operations of each layer, a microsecond of work and one to three of overhead apiece, a good part of
them. Here every view that does not depend on the layer's numbers is made once a step for all layers
(slots, contexts, rotations), results are added in place, and nothing asks which function is
installed: the runner takes this pass where no learner's function is. Chapter 16; `forward.py`
beside this file is its counterpart on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import kernels
from infero.kernels import packed, paged_attention, torch_ops

if TYPE_CHECKING:
    from infero.cache.kv import KVCache
    from infero.model import Batch, Model


def usable(model: Model) -> bool:
    """Whether this pass computes what the model's own would: on a CPU, with nothing replaced."""
    chosen = kernels.options()
    return (model.device.type == "cpu" and chosen.fuse and chosen.kernels in ("auto", "torch")
            and not kernels.learners(model.device))


def linear(x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    """x [tokens, in] times weight [out, in] transposed, plus bias."""
    if isinstance(weight, Tensor):
        return packed.linear(x, weight, bias)
    return weight.multiply(x, bias)


class Doubled(packed.Packed):
    """The weight of a norm twice over, and the version of the weight it was made from."""

    def __init__(self, weight: Tensor) -> None:
        self.version = weight._version
        self.tensor = torch.cat((weight, weight))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `torch_ops.rms_norm`, whose doubled weight is kept with the weight."""
    if x.dtype != torch.bfloat16 or weight.is_inference():  # the latter do not tell of changes
        return torch_ops.rms_norm(x, weight, eps)
    kept: Doubled | None = getattr(weight, "doubled", None)
    if kept is None or kept.version != weight._version:
        kept = weight.doubled = Doubled(weight)  # type: ignore[attr-defined]
    size = x.shape[1]
    both = torch.cat((x, -x), 1)
    return torch.layer_norm(both, (2 * size,), kept.tensor, None, eps)[:, :size]


@torch.inference_mode()
def forward(model: Model, tokens: Tensor, batch: Batch, cache: KVCache,
            rows: Tensor | None = None) -> Tensor:
    """As `infero.model.forward`: float32 logits [rows, vocab]."""
    c = model.config
    heads, kv_heads, dim, eps = c.num_heads, c.num_kv_heads, c.head_dim, c.norm_eps
    turned, n, scale = (heads + kv_heads) * dim, len(tokens), dim**-0.5
    x = kernels.embed(tokens, model.embedding)
    cos, sin = torch_ops.rotation(batch.positions, model.inv_freq, x.dtype)
    single = _one_request(batch, c.sliding_window)
    if single is not None:  # one new token: its slot and its context, in every layer
        slot, begin = single
        new_k, new_v = (t[:, slot].unbind(0) for t in (cache.k, cache.v))
        seen_k, seen_v = (t[:, begin : slot + 1].transpose(1, 2).unsqueeze(1).unbind(0)
                          for t in (cache.k, cache.v))
    for i, layer in enumerate(model.layers):
        h = rms_norm(x, layer.input_norm, eps)
        qkv = linear(h, layer.qkv, layer.qkv_bias)
        qk = qkv[:, :turned].view(n, heads + kv_heads, dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            qk = torch.cat((kernels.rms_norm(qk[:, :heads], layer.q_norm, eps),
                            kernels.rms_norm(qk[:, heads:], layer.k_norm, eps)), dim=1)
        qk = torch.addcmul(qk * cos, qk.roll(dim // 2, -1), sin)
        if single is None:
            cache.k[i].index_copy_(0, batch.slots, qk[:, heads:])
            cache.v[i].index_copy_(0, batch.slots, qkv[:, turned:].view(n, kv_heads, dim))
            mixed = kernels.attention(qk[:, :heads], cache.k[i], cache.v[i], batch, scale,
                                      c.window(i))
        else:
            new_k[i].copy_(qk[0, heads:])
            new_v[i].copy_(qkv[0, turned:].view(kv_heads, dim))
            q = qk[:, :heads].view(1, kv_heads, heads // kv_heads, dim)
            mixed = F.scaled_dot_product_attention(q, seen_k[i], seen_v[i], scale=scale)
        x = linear(mixed.reshape(n, heads * dim), layer.o, layer.o_bias).add_(x)
        gate_up = linear(rms_norm(x, layer.post_norm, eps), layer.gate_up, layer.gate_up_bias)
        gate, up = gate_up.chunk(2, 1)
        x = linear(F.silu(gate).mul_(up), layer.down, layer.down_bias).add_(x)
    if rows is not None:
        x = x[rows]
    return linear(rms_norm(x, model.final_norm, eps), model.head).float()


def _one_request(batch: Batch, window: int | None) -> tuple[int, int] | None:
    """(slot of the only new token, first slot of its context) where all lie side by side."""
    if batch.query_lens != [1] or window is not None:
        return None
    first = paged_attention.first_slot(batch, 0)
    return None if first is None else (first + batch.context_lens[0] - 1, first)
