"""Rows of the embedding matrix on a GPU, for tokens that the host may not have seen yet.

While the GPU runs step n, the host plans step n + 1, whose input tokens step n is still drawing.
So a token is either known (`ids`) or named by the row that draws it (`source`), and is looked up in
that step's result on the device. Chapter 16 explains the overlap this makes possible.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.kernels import overlap
from infero.kernels.examples import Example
from infero.kernels.language import tl, triton


@triton.jit(do_not_specialize_on_alignment=["ids", "source", "previous"])
def _gather(ids, source, previous, weight, out, vocab, hidden, weight_stride,
            SOURCES: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """A block of one token's row a program; an id outside the vocabulary gives zeros."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    token = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    id = tl.load(ids + token).to(tl.int64)
    if SOURCES:
        row = tl.load(source + token)
        if row >= 0:
            id = tl.load(previous + row).to(tl.int64)
    known = (id >= 0) & (id < vocab)
    values = tl.load(weight + id * weight_stride + i, mask=(i < hidden) & known, other=0.0)
    tl.store(out + token.to(tl.int64) * hidden + i, values, mask=i < hidden)


def gather(ids: Tensor, weight: Tensor, source: Tensor | None = None,
           previous: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """ids [tokens] integers, weight [vocab, hidden] -> [tokens, hidden].

    With source [tokens] int32 and previous [rows] int64, token i is previous[source[i]] where
    source[i] is not negative, and ids[i] elsewhere.
    """
    tokens, (vocab, hidden) = ids.shape[0], weight.shape
    if out is None:
        out = torch.empty(tokens, hidden, dtype=weight.dtype, device=weight.device)
    if tokens:
        block = min(triton.next_power_of_2(hidden), 1024)
        _gather[(tokens, triton.cdiv(hidden, block))](
            ids, ids if source is None else source, ids if previous is None else previous, weight,
            out, vocab, hidden, weight.stride(0), SOURCES=source is not None, BLOCK=block,
            num_warps=4, **overlap.options(weight.device))
    return out


def examples() -> list[Example]:
    """For the cross-compile test."""
    signature = {"ids": "*i32", "source": "*i32", "previous": "*i64", "weight": "*fp16",
                 "out": "*fp16", "vocab": "i32", "hidden": "i32", "weight_stride": "i32",
                 "SOURCES": "constexpr", "BLOCK": "constexpr", "PDL": "constexpr"}
    return [Example(_gather, signature, {"SOURCES": True, "BLOCK": 1024, "PDL": False},
                    aligned=("hidden", "weight_stride"))]
