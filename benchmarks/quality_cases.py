"""The lines of the table of qualities: every method with its settings, and how it is made.

`quality.py` measures them. A line is a quantizer of `infero.quant` with settings, or a function
that changes a model: formats that have no kernel here are weights at the nearest numbers that the
format can hold. Chapters 4 and 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.kernels import formats
from infero.model import Model
from infero.quant import affine, blocks, codes
from infero.quant.fold import MATRICES

Change = Callable[[Model], Model]


@dataclass(frozen=True)
class Case:
    """A line of the table. `settings`: of a quantizer; or `change`: what makes the smaller model.

    format: what the engine reads, by which a speed is found. bits: of a weight, without scales;
    bits_a_weight: with them, where the settings do not say.
    """

    name: str
    method: str
    format: str
    bits: float
    settings: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    group: str = "row"
    bits_a_weight: float | None = None
    activations: str = "16"


def per_tensor(model: Model) -> Model:
    """Int8 with one scale for each whole matrix."""
    return replaced(model, lambda w: affine.fake_quantize(w, 8, granularity="tensor"),
                    lambda w: affine.fake_quantize(w, 8, granularity="tensor"))


def in_blocks(name: str, head: str | None = None) -> Change:
    """Weights at the nearest numbers of one of chapter 5's block formats; the head in int8."""
    nearest = blocks.FORMATS[name][0]
    return lambda model: replaced(model, nearest, blocks.FORMATS[head][0] if head else int8_head)


def int8_head(weight: Tensor) -> Tensor:
    """What the head is in eight bits, one scale a row."""
    return codes.pack(affine.rtn(weight, 8), weight.dtype).dequantize()


def replaced(model: Model, change: Callable[[Tensor], Any], head: Callable[[Tensor], Any]) -> Model:
    """The model with every matrix of its layers and its head changed."""
    layers = [dataclasses.replace(layer, **{n: change(getattr(layer, n)) for n in MATRICES})
              for layer in model.layers]
    return dataclasses.replace(model, layers=layers, head=head(model.head))


class BothFp8(formats._Format):
    """An E4M3 weight whose activations are rounded to E4M3 too, a scale a token, as on Hopper."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = formats.quantize_rows(weight, "fp8").dequantize()

    @property
    def shape(self) -> torch.Size:
        return self.weight.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in], rounded, times the weight transposed."""
        scale = x.abs().amax(1, keepdim=True).clamp(min=1e-12) / formats.FP8_LARGEST
        limited = (x / scale).clamp(-formats.FP8_LARGEST, formats.FP8_LARGEST)
        return F.linear(limited.to(torch.float8_e4m3fn).to(x.dtype) * scale, self.weight, bias)


def both_fp8(model: Model) -> Model:
    """Weights and activations in E4M3."""
    return replaced(model, BothFp8, BothFp8)


def in_bf16(model: Model) -> Model:
    """Weights and arithmetic in bfloat16."""
    def cast(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.to(torch.bfloat16)

    layers = [dataclasses.replace(layer, **{k: cast(t) for k, t in vars(layer).items()})
              for layer in model.layers]
    embedding = model.embedding.to(torch.bfloat16)
    head = embedding if model.head is model.embedding else model.head.to(torch.bfloat16)
    return dataclasses.replace(model, layers=layers, embedding=embedding, head=head,
                               final_norm=model.final_norm.to(torch.bfloat16))


def few_bits(method: str, bits: int, group: int | None, symmetric: bool = True, suffix: str = "",
             **more: Any) -> Case:
    """A line of four bits or fewer, named like gptq4_g64 or rtn3_ch; an `a` is for asymmetric."""
    name = f"{method}{bits}_{f'g{group}' if group else 'ch'}{'' if symmetric else 'a'}{suffix}"
    # GPTQ with the ranges and the order that serve it best; its plain line is as in the paper
    best = {"gptq": {"ranges": "hessian", "act_order": True}}.get(method, {"ranges": "minmax"})
    settings = {"method": method, "bits": bits, "group": group, "symmetric": symmetric,
                **best, **more}
    return Case(name, method, "int4", bits, settings, group=str(group or "row"))


CASES = (
    Case("bf16", "bfloat16", "bf16", 16, change=in_bf16, bits_a_weight=16),
    Case("int8_tensor", "rtn", "int8", 8, change=per_tensor, group="tensor", bits_a_weight=8),
    Case("int8", "rtn", "int8", 8, {"method": "int8"}),
    Case("w8a8", "w8a8", "w8a8", 8, {"method": "w8a8"}, activations="8"),
    Case("smoothquant", "smoothquant", "w8a8", 8, {"method": "smoothquant"}, activations="8"),
    Case("outliers", "outliers", "outliers", 8, {"method": "outliers"}, activations="8 and 16"),
    Case("fp8", "e4m3", "fp8", 8, {"method": "fp8"}),
    Case("fp8_both", "e4m3", "fp8", 8, change=both_fp8, activations="8"),
    few_bits("rtn", 4, 64), few_bits("gptq", 4, 64), few_bits("awq", 4, 64),
    few_bits("rtn", 4, None), few_bits("gptq", 4, None), few_bits("awq", 4, None),
    few_bits("rtn", 3, 64), few_bits("gptq", 3, 64), few_bits("awq", 3, 64),
    few_bits("rtn", 3, None), few_bits("gptq", 3, None), few_bits("awq", 3, None),
    few_bits("rtn", 4, 64, False), few_bits("gptq", 4, 64, False), few_bits("awq", 4, 64, False),
    few_bits("rtn", 3, 64, False), few_bits("gptq", 3, 64, False), few_bits("awq", 3, 64, False),
    few_bits("rtn", 4, None, False), few_bits("rtn", 3, None, False),
    few_bits("rtn", 4, 32, False),
    few_bits("rtn", 4, 64, suffix="_mse", ranges="mse"),
    few_bits("rtn", 3, 64, suffix="_mse", ranges="mse"),
    few_bits("rtn", 4, None, suffix="_mse", ranges="mse"),
    few_bits("gptq", 4, 64, suffix="_plain", ranges="minmax", act_order=False),
    few_bits("qat", 4, 64), few_bits("qat", 3, 64),
    Case("mixed4", "mixed", "mixed", 4, {"method": "mixed", "budget_bits": 4.0}, group="64"),
    *(Case(name.lower(), name, "int4" if bits < 6 else "int8", int(bits),
           change=in_blocks(name), group=group, bits_a_weight=bits)
      for name, bits, group in (("Q4_0", 4.5, "32"), ("NF4", 4.25, "64"), ("MXFP4", 4.25, "32"),
                                ("NVFP4", 4.5, "16"), ("MXFP8", 8.25, "32"))),
    Case("q4_1", "as stored", "q4_1", 4, change=in_blocks("Q4_1", head="Q8_0"), group="32",
         bits_a_weight=5.0),
)
