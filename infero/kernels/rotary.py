"""RoPE on a GPU, in one launch with the norms of q and k before it and the cache write after it.

One layer's queries, keys and values come out of one matrix product. A program takes some heads of
one token: queries are (normed and) rotated into a tensor of their own, keys are too, but straight
into their cache slot, and values are copied there. Angles are float32, and everything between
reading and writing is: the result is rounded once. Chapter 13; Su et al., arXiv:2104.09864.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from infero import tune
from infero.errors import ParameterError
from infero.kernels import overlap
from infero.kernels.examples import Example
from infero.kernels.language import INTERPRETED, libdevice, tl, triton


@triton.jit
def _rotation(position, inv_freq, i, half, EXACT: tl.constexpr):
    """Cosine and sine of the angles of one token.

    For 16-bit results the card's own sine is right to 1e-6, if the angle is first brought within
    half a turn: by fused multiply-adds of 2 pi in two parts, which lose nothing of a long angle.
    """
    angle = position.to(tl.float32) * tl.load(inv_freq + i, mask=i < half, other=0.0)
    if EXACT:
        return tl.cos(angle), tl.sin(angle)
    turns = tl.floor(angle * 0.15915494309189535 + 0.5)
    angle = tl.fma(turns, -6.2831854820251465, angle)
    angle = tl.fma(turns, 1.7484555314695172e-07, angle)
    return libdevice.fast_cosf(angle), libdevice.fast_sinf(angle)


@triton.jit
def _store(pointer, i, half, low, high, inside):
    """The two halves of some heads, in the pointer's dtype."""
    tl.store(pointer + i, low.to(pointer.dtype.element_ty), mask=inside)
    tl.store(pointer + half + i, high.to(pointer.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize_on_alignment=["positions", "slots"])
def _rotate_and_write(qkv, positions, slots, inv_freq, q_norm, k_norm, q_out, k_cache, v_cache,
                      half, token_stride, head_stride, k_stride, v_stride, k_head, v_head, eps,
                      HEADS: tl.constexpr, KV_HEADS: tl.constexpr, NORM: tl.constexpr,
                      GROUP: tl.constexpr, HALF: tl.constexpr, EXACT: tl.constexpr,
                      PDL: tl.constexpr):
    """GROUP heads of one token a program, all queries, all keys or all values."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    Q_GROUPS: tl.constexpr = (HEADS + GROUP - 1) // GROUP
    KV_GROUPS: tl.constexpr = (KV_HEADS + GROUP - 1) // GROUP
    GROUPS: tl.constexpr = Q_GROUPS + 2 * KV_GROUPS
    token, group = tl.program_id(0) // GROUPS, tl.program_id(0) % GROUPS
    is_q, is_v = group < Q_GROUPS, group >= Q_GROUPS + KV_GROUPS
    kv_group = (group - Q_GROUPS) % max(KV_GROUPS, 1)
    h = tl.where(is_q, group, kv_group) * GROUP + tl.arange(0, GROUP)[:, None]  # among its kind
    i = tl.arange(0, HALF)[None, :]
    inside = (h < tl.where(is_q, HEADS, KV_HEADS)) & (i < half)
    before = tl.where(is_q, 0, tl.where(is_v, HEADS + KV_HEADS, HEADS))
    token = token.to(tl.int64)
    # everything is read before anything is worked out: a program waits for the memory once
    at = qkv + token * token_stride + (before + h) * head_stride + i
    raw_low = tl.load(at, mask=inside, other=0.0)
    raw_high = tl.load(at + half, mask=inside, other=0.0)
    position = tl.load(positions + token)
    slot = tl.full((), -1, tl.int64)
    if KV_HEADS > 0:
        slot = tl.load(slots + token).to(tl.int64)
    low, high = raw_low.to(tl.float32), raw_high.to(tl.float32)
    if is_v:
        if slot >= 0:
            _store(v_cache + slot * v_stride + h * v_head, i, half, low, high, inside)
    else:
        if NORM:
            norm_q, norm_k = q_norm + i, k_norm + i
            left = tl.load(norm_q, mask=(i < half) & is_q, other=0.0).to(tl.float32)
            right = tl.load(norm_q + half, mask=(i < half) & is_q, other=0.0).to(tl.float32)
            left += tl.load(norm_k, mask=(i < half) & (group >= Q_GROUPS), other=0.0)
            right += tl.load(norm_k + half, mask=(i < half) & (group >= Q_GROUPS), other=0.0)
            square = tl.sum(low * low + high * high, axis=1)[:, None]
            scale = 1 / tl.sqrt_rn(square / (2 * half) + eps)
            low *= scale * left
            high *= scale * right
        cos, sin = _rotation(position, inv_freq, i, half, EXACT)
        first, second = low * cos - high * sin, high * cos + low * sin
        if is_q:
            _store(q_out + (token * HEADS + h) * 2 * half, i, half, first, second, inside)
        elif slot >= 0:
            _store(k_cache + slot * k_stride + h * k_head, i, half, first, second, inside)


@functools.cache
def _config(heads: int, kv_heads: int, dim: int) -> tuple[int, int, int, int]:
    """Heads a program, programs a token, half a head as a power of two, warps.

    Nothing here depends on the batch, nor does the order of the norms' sums.
    """
    half = max(triton.next_power_of_2(dim // 2), 8)
    chosen = tune.best("rotary.rotate_and_write", f"half{half}") or {}
    group = chosen.get("group", max(1, 512 // half))
    group = min(group, triton.next_power_of_2(max(heads, kv_heads)))
    groups = triton.cdiv(heads, group) + 2 * triton.cdiv(kv_heads, group)
    return group, groups, half, chosen.get("warps", max(1, min(group * half // 256, 8)))


def _exact(x: Tensor) -> bool:
    """Whether sines must be right to float32's last bits (and under the interpreter)."""
    return INTERPRETED or x.dtype == torch.float32


def rotate_and_write(qkv: Tensor, positions: Tensor, slots: Tensor, inv_freq: Tensor,
                     k_cache: Tensor, v_cache: Tensor, heads: int, kv_heads: int,
                     q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                     eps: float = 1e-6, out: Tensor | None = None) -> Tensor:
    """Rotated queries [tokens, heads, dim]; rotated keys, and values, go into the cache.

    qkv: [tokens, (heads + 2 * kv_heads) * dim]; positions, slots: [tokens] integers; inv_freq:
    [dim / 2] float32; k_cache, v_cache: one layer, [slots, kv_heads, dim]. A token whose slot is
    negative writes nothing. q_norm, k_norm: [dim], the norms that some models apply to each head
    before they rotate it.
    """
    tokens, dim = qkv.shape[0], 2 * inv_freq.shape[0]
    if (q_norm is None) != (k_norm is None):
        raise ParameterError("One of q_norm and k_norm is given; a model has both or neither.")
    if out is None:
        out = torch.empty(tokens, heads, dim, dtype=qkv.dtype, device=qkv.device)
    if tokens:
        group, groups, half, warps = _config(heads, kv_heads, dim)
        _rotate_and_write[(tokens * groups,)](
            qkv, positions, slots, inv_freq, inv_freq if q_norm is None else q_norm,
            inv_freq if k_norm is None else k_norm, out, k_cache, v_cache, dim // 2, qkv.stride(0),
            dim, k_cache.stride(0), v_cache.stride(0), k_cache.stride(1), v_cache.stride(1), eps,
            HEADS=heads, KV_HEADS=kv_heads, NORM=q_norm is not None, GROUP=group, HALF=half,
            EXACT=_exact(qkv), num_warps=warps, **overlap.options(qkv.device))
    return out


def rotate(x: Tensor, positions: Tensor, inv_freq: Tensor, out: Tensor | None = None) -> Tensor:
    """As `infero.model.rope`: x [tokens, heads, dim], perhaps some heads of wider rows."""
    tokens, heads, dim = x.shape
    if x.stride(2) != 1:
        x = x.contiguous()
    if out is None:
        out = torch.empty(tokens, heads, dim, dtype=x.dtype, device=x.device)
    if tokens and heads:
        group, groups, half, warps = _config(heads, 0, dim)
        _rotate_and_write[(tokens * groups,)](
            x, positions, positions, inv_freq, inv_freq, inv_freq, out, out, out, dim // 2,
            x.stride(0), x.stride(1), 0, 0, 0, 0, 0.0, HEADS=heads, KV_HEADS=0, NORM=False,
            GROUP=group, HALF=half, EXACT=_exact(x), num_warps=warps,
            **overlap.options(x.device))
    return out


def examples() -> list[Example]:
    """For the cross-compile test."""
    pointers = ("qkv", "q_norm", "k_norm", "q_out", "k_cache", "v_cache")
    signature = dict.fromkeys(_rotate_and_write.arg_names, "i32") | {
        "inv_freq": "*fp32", "positions": "*i32", "slots": "*i64", "eps": "fp32"}
    signature |= dict.fromkeys(pointers, "*fp16")
    constants = ("HEADS", "KV_HEADS", "NORM", "GROUP", "HALF", "EXACT", "PDL")
    signature |= dict.fromkeys(constants, "constexpr")
    strides = ("half", "token_stride", "head_stride", "k_stride", "v_stride", "k_head", "v_head")
    one = {"HEADS": 9, "KV_HEADS": 3, "NORM": False, "GROUP": 8, "HALF": 32, "EXACT": True,
           "PDL": False}
    many = {"HEADS": 16, "KV_HEADS": 8, "NORM": True, "GROUP": 8, "HALF": 64,
            "EXACT": False, "PDL": True}
    return [Example(_rotate_and_write, signature, one, 2),
            Example(_rotate_and_write, signature, many, 2, least=(9, 0), aligned=strides),
            Example(_rotate_and_write, signature, many | {"PDL": False}, 2, aligned=strides)]
