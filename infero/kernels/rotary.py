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
from infero.kernels.examples import Example
from infero.kernels.language import tl, triton


@triton.jit
def _rotated(pointer, head, i, inside, cos, sin, norm, eps, half, stride,
             NORM: tl.constexpr):
    """Heads [HEADS, HALF] of one token, as two halves: normed if NORM, then rotated."""
    low = tl.load(pointer + head * stride + i, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(pointer + head * stride + half + i, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        square = tl.sum(low * low + high * high, axis=1)[:, None]
        scale = 1 / tl.sqrt_rn(square / (2 * half) + eps)
        low *= scale * tl.load(norm + i, mask=i < half, other=0.0).to(tl.float32)
        high *= scale * tl.load(norm + half + i, mask=i < half, other=0.0).to(tl.float32)
    return low * cos - high * sin, high * cos + low * sin


@triton.jit
def _rotate_and_write(qkv, positions, slots, inv_freq, q_norm, k_norm, q_out, k_cache, v_cache,
                      half, token_stride, head_stride, k_stride, v_stride, k_head, v_head, eps,
                      HEADS: tl.constexpr, KV_HEADS: tl.constexpr, NORM: tl.constexpr,
                      GROUP: tl.constexpr, PARTS: tl.constexpr, HALF: tl.constexpr):
    """PARTS groups of GROUP heads of one token a program: groups of q, then of k, then of v."""
    token = tl.program_id(0).to(tl.int64)
    dim = 2 * half
    head, i = tl.arange(0, GROUP)[:, None], tl.arange(0, HALF)[None, :]
    angle = tl.load(positions + token).to(tl.float32) * tl.load(
        inv_freq + i, mask=i < half, other=0.0)
    cos, sin = tl.cos(angle), tl.sin(angle)
    qkv += token * token_stride
    q_out += token * HEADS * dim
    Q_GROUPS: tl.constexpr = (HEADS + GROUP - 1) // GROUP
    KV_GROUPS: tl.constexpr = (KV_HEADS + GROUP - 1) // GROUP
    slot = tl.full((), -1, tl.int64)
    if KV_HEADS > 0:
        slot = tl.load(slots + token).to(tl.int64)
    for part in tl.static_range(PARTS):
        group = tl.program_id(1) * PARTS + part
        if group < Q_GROUPS:
            h = group * GROUP + head
            inside = (h < HEADS) & (i < half)
            low, high = _rotated(qkv, h, i, inside, cos, sin, q_norm, eps, half, head_stride, NORM)
            tl.store(q_out + h * dim + i, low.to(q_out.dtype.element_ty), mask=inside)
            tl.store(q_out + h * dim + half + i, high.to(q_out.dtype.element_ty), mask=inside)
        elif (group < Q_GROUPS + KV_GROUPS) & (slot >= 0):
            h = (group - Q_GROUPS) * GROUP + head
            inside = (h < KV_HEADS) & (i < half)
            low, high = _rotated(qkv + HEADS * head_stride, h, i, inside, cos, sin, k_norm, eps,
                                 half, head_stride, NORM)
            at = k_cache + slot * k_stride + h * k_head + i
            tl.store(at, low.to(k_cache.dtype.element_ty), mask=inside)
            tl.store(at + half, high.to(k_cache.dtype.element_ty), mask=inside)
        elif (group < Q_GROUPS + 2 * KV_GROUPS) & (slot >= 0):
            h = (group - Q_GROUPS - KV_GROUPS) * GROUP + head
            inside = (h < KV_HEADS) & (i < half)
            source = qkv + (HEADS + KV_HEADS + h) * head_stride + i
            low = tl.load(source, mask=inside, other=0.0)
            high = tl.load(source + half, mask=inside, other=0.0)
            at = v_cache + slot * v_stride + h * v_head + i
            tl.store(at, low.to(v_cache.dtype.element_ty), mask=inside)
            tl.store(at + half, high.to(v_cache.dtype.element_ty), mask=inside)


MANY = 512  # tokens from which on a program takes a whole token: sines are computed once


@functools.cache
def _config(heads: int, kv_heads: int, dim: int, many: bool) -> tuple[int, int, int, int, int]:
    """Heads a group, groups a program, programs a token, half a head as a power of two, warps.

    Groups and warps, and with them the order of the norms' sums, do not depend on the batch.
    """
    half = max(triton.next_power_of_2(dim // 2), 8)
    chosen = tune.best("rotary.rotate_and_write", f"half{half}") or {}
    group = min(chosen.get("group", 8), triton.next_power_of_2(max(heads, kv_heads)))
    groups = triton.cdiv(heads, group) + 2 * triton.cdiv(kv_heads, group)
    parts = min(groups, 32) if many else 1
    return group, parts, triton.cdiv(groups, parts), half, chosen.get("warps", 2)


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
        group, parts, programs, half, warps = _config(heads, kv_heads, dim, tokens >= MANY)
        _rotate_and_write[(tokens, programs)](
            qkv, positions, slots, inv_freq, inv_freq if q_norm is None else q_norm,
            inv_freq if k_norm is None else k_norm, out, k_cache, v_cache, dim // 2, qkv.stride(0),
            dim, k_cache.stride(0), v_cache.stride(0), k_cache.stride(1), v_cache.stride(1), eps,
            HEADS=heads, KV_HEADS=kv_heads, NORM=q_norm is not None, GROUP=group, PARTS=parts,
            HALF=half, num_warps=warps)
    return out


def rotate(x: Tensor, positions: Tensor, inv_freq: Tensor, out: Tensor | None = None) -> Tensor:
    """As `infero.model.rope`: x [tokens, heads, dim], perhaps some heads of wider rows."""
    tokens, heads, dim = x.shape
    if x.stride(2) != 1:
        x = x.contiguous()
    if out is None:
        out = torch.empty(tokens, heads, dim, dtype=x.dtype, device=x.device)
    if tokens and heads:
        group, parts, programs, half, warps = _config(heads, 0, dim, tokens >= MANY)
        _rotate_and_write[(tokens, programs)](
            x, positions, positions, inv_freq, inv_freq, inv_freq, out, out, out, dim // 2,
            x.stride(0), x.stride(1), 0, 0, 0, 0, 0.0, HEADS=heads, KV_HEADS=0, NORM=False,
            GROUP=group, PARTS=parts, HALF=half, num_warps=warps)
    return out


def examples() -> list[Example]:
    """For the cross-compile test."""
    pointers = ("qkv", "q_norm", "k_norm", "q_out", "k_cache", "v_cache")
    signature = dict.fromkeys(_rotate_and_write.arg_names, "i32") | {
        "inv_freq": "*fp32", "positions": "*i32", "slots": "*i64", "eps": "fp32"}
    signature |= dict.fromkeys(pointers, "*fp16")
    constants = ("HEADS", "KV_HEADS", "NORM", "GROUP", "PARTS", "HALF")
    signature |= dict.fromkeys(constants, "constexpr")
    strides = ("half", "token_stride", "head_stride", "k_stride", "v_stride", "k_head", "v_head")
    one = {"HEADS": 9, "KV_HEADS": 3, "NORM": False, "GROUP": 8, "PARTS": 1, "HALF": 32}
    many = {"HEADS": 16, "KV_HEADS": 8, "NORM": True, "GROUP": 8, "PARTS": 4, "HALF": 64}
    return [Example(_rotate_and_write, signature, one, 2),
            Example(_rotate_and_write, signature, many, 2, aligned=strides)]
