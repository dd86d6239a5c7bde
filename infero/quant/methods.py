"""The methods of chapters 4 and 5 behind one interface: a layer in, its packed matrices out.

A method may do two things to a layer. `prepare` folds factors into the weights before they are
rounded (SmoothQuant, AWQ); `matrix` rounds one matrix and packs it for the kernels. What a method
wants to know of the activations it says in advance, so that nothing is measured in vain.
`quantizer.py` walks through the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.kernels import formats
from infero.quant import affine, codes, floats, fold, outliers

if TYPE_CHECKING:
    from infero.model import Model
    from infero.quant.calibration import Stats

OWN = 0  # bits and group: those that the method has by itself
WHOLE = 8  # bits that are one byte a weight, with one scale a row
FEW = (2, 3, 4)  # bits that share the layout of 4


@dataclass(frozen=True)
class Settings:
    """What a quantization is asked to do. Everything that changes the numbers is in here.

    bits: 4 by default, 8 where the method is one of 8. group: inputs that share a scale, None for
    one scale a row; by default 64, and None at 8 bits. head: the output head too, in eight bits.
    calibration_tokens in windows of `length` tokens; seed: which windows. damping, act_order: GPTQ.
    ranges: what a scale covers, by default the first that the method knows. alpha: how much of the
    outliers SmoothQuant moves into the weights. threshold: the size from which LLM.int8() calls an
    activation an outlier. budget_bits: mixed precision's mean; 3 bits count as 3, though the
    kernels' layout gives them the room of 4. steps: QAT's, a layer.
    """

    method: str
    bits: int = OWN
    group: int | None = OWN
    symmetric: bool = True
    act_order: bool = True
    damping: float = 0.01
    head: bool = True
    calibration_tokens: int = 16384
    length: int = 512
    seed: int = 0
    alpha: float = 0.5
    threshold: float = 6.0
    budget_bits: float | None = None
    steps: int = 16
    ranges: str = ""

    def __post_init__(self) -> None:
        kind = METHODS.get(self.method)
        if kind is None:
            raise ConfigError(f"There is no method {self.method!r}; there are "
                              f"{', '.join(METHODS)}.")
        if self.bits == OWN:
            object.__setattr__(self, "bits", WHOLE if kind.bytes else 4)
        if self.group == OWN:
            object.__setattr__(self, "group", None if self.bits == WHOLE else 64)
        if not self.ranges:
            object.__setattr__(self, "ranges", kind.ranges[0])
        if self.ranges not in kind.ranges:
            raise ConfigError(f"ranges is {self.ranges!r}; {self.method} has "
                              f"{', '.join(kind.ranges)}.")
        self._check_bits(kind.bytes)
        if self.method == "mixed" and self.budget_bits is None:
            object.__setattr__(self, "budget_bits", float(self.bits))
        if self.budget_bits is not None and self.method != "mixed":
            raise ConfigError(f"budget_bits is {self.budget_bits:g}, but {self.method} gives every "
                              "matrix the same bits: leave it away, or use the method mixed.")
        if self.method == "mixed" and (self.bits != 4 or not self.symmetric):
            raise ConfigError("mixed chooses the bits of each matrix itself, symmetric: leave "
                              "--bits and --asymmetric away, and say --budget-bits.")
        limits = (("damping", self.damping > 0, "above 0"),
                  ("alpha", 0 <= self.alpha <= 1, "0 to 1"),
                  ("threshold", self.threshold > 0, "above 0"),
                  ("length", self.length >= 1, "at least 1"),
                  ("steps", self.steps >= 1, "at least 1"),
                  ("calibration_tokens", self.calibration_tokens >= self.length,
                   f"at least one window of {self.length}"),
                  ("budget_bits", self.budget_bits is None or 3 <= self.budget_bits <= 8, "3 to 8"))
        for name, fine, wanted in limits:
            if not fine:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {wanted}.")

    def _check_bits(self, whole: bool) -> None:
        allowed = (WHOLE,) if whole else (*FEW, WHOLE)
        if self.bits not in allowed:
            raise ConfigError(f"bits is {self.bits}; {self.method} has "
                              f"{', '.join(map(str, allowed))}.")
        if self.bits == WHOLE and (self.group is not None or not self.symmetric):
            raise ConfigError(
                f"8 bits with {'zero points' if not self.symmetric else f'groups of {self.group}'} "
                "have no kernel: use one scale a row (--group 0), symmetric, or at most 4 bits.")
        if self.group is not None and (self.group < 1 or self.group % formats.SLICE):
            raise ConfigError(f"A group of {self.group} inputs does not fall on the slices of "
                              f"{formats.SLICE} that the kernels read: choose a multiple of "
                              f"{formats.SLICE}, such as 64, or 0 for one scale a row.")

    @property
    def windows(self) -> int:
        """Windows of `length` tokens of the calibration text."""
        return self.calibration_tokens // self.length


class Quantizer(Protocol):
    """One method with its settings."""

    settings: Settings
    index: int  # of the layer that is being quantized
    folds: bool  # `prepare` wants the layer's statistics before anything is rounded
    needs_stats: bool  # `matrix` wants them
    needs_hessian: bool  # and the Hessian too
    trains: bool  # a layer's matrices come together, from `layer`

    def begin(self, model: Model, ids: Tensor | None, say: Callable[[str], None]
              ) -> dict[str, Any]:
        """Decide what concerns the whole model; the answer is kept, and given to `go_on`.

        ids: the calibration text's windows [n, length]; say: told what is being done.
        """

    def go_on(self, decided: dict[str, Any]) -> None:
        """Take up what `begin` decided."""

    def prepare(self, model: Model, index: int, stats: dict[str, Stats]) -> None:
        """Change layer `index` without changing what it computes, so that rounding hurts less."""

    def matrix(self, name: str, weight: Tensor, stats: Stats | None) -> formats.Quantized:
        """The rounded matrix. name: "qkv", "o", "gate_up" or "down"; weight: [out, in]."""

    def layer(self, model: Model, index: int, hidden: Tensor, aim: Tensor
              ) -> dict[str, formats.Quantized]:
        """Layer `index` trained to make of `hidden` what `aim` is; both [n, length, hidden]."""

    def head(self, weight: Tensor) -> formats.Quantized:
        """The rounded output head [vocab, hidden]."""


class Rounding:
    """Round to nearest; the other methods differ from it in one thing each."""

    bytes: ClassVar[bool] = False  # always one byte a weight
    ranges: ClassVar[tuple[str, ...]] = ("minmax", "percentile", "mse")  # the first by default
    folds = False
    needs_stats = False
    needs_hessian = False
    trains = False
    index = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def begin(self, model: Model, ids: Tensor | None, say: Callable[[str], None]
              ) -> dict[str, Any]:
        """Nothing to decide."""
        return {}

    def go_on(self, decided: dict[str, Any]) -> None:
        """Nothing was decided."""

    def prepare(self, model: Model, index: int, stats: dict[str, Stats]) -> None:
        """Leave the layer as it is."""

    def matrix(self, name: str, weight: Tensor, stats: Stats | None) -> formats.Quantized:
        """The nearest values."""
        return codes.pack(self.rounded(weight, stats), weight.dtype)

    def layer(self, model: Model, index: int, hidden: Tensor, aim: Tensor
              ) -> dict[str, formats.Quantized]:
        """Nothing is trained."""
        raise NotImplementedError

    def rounded(self, weight: Tensor, stats: Stats | None) -> codes.Codes:
        """The whole numbers of a matrix."""
        s = self.settings
        return affine.rtn(weight, s.bits, s.group, s.symmetric, s.ranges)  # type: ignore[arg-type]

    def head(self, weight: Tensor) -> formats.Quantized:
        """Eight bits, one scale a row."""
        return codes.pack(affine.rtn(weight, WHOLE), weight.dtype)


class Int8(Rounding):
    """Eight bits, one scale a row."""

    bytes = True


class Fp8(Rounding):
    """Eight bits of floating point (E4M3), one scale a row: arXiv:2209.05433."""

    bytes = True
    ranges = ("minmax",)

    def matrix(self, name: str, weight: Tensor, stats: Stats | None) -> formats.Quantized:
        """The nearest values."""
        parts = [floats.weight_e4m3(part) for part in weight.split(affine.ROWS)]
        return formats.Fp8Weight(torch.cat([p.values for p in parts]),
                                 torch.cat([p.scales for p in parts]), weight.dtype)

    def head(self, weight: Tensor) -> formats.Quantized:
        """In the same format."""
        return self.matrix("head", weight, None)


class W8A8(Rounding):
    """Eight bits for weights and activations: arXiv:2206.01861."""

    bytes = True
    ranges = ("minmax",)

    def matrix(self, name: str, weight: Tensor, stats: Stats | None) -> formats.Quantized:
        """The nearest values, for activations that are rounded too."""
        from infero.kernels import formats_dynamic

        return formats_dynamic.quantize_w8a8(weight)  # type: ignore[return-value]


class SmoothQuant(W8A8):
    """W8A8 after the weights have taken a share of the outliers: arXiv:2211.10438."""

    folds = True

    def prepare(self, model: Model, index: int, stats: dict[str, Stats]) -> None:
        """Fold the factors in."""
        outliers.smooth(model.config, model.layers[index], stats, self.settings.alpha)


class Outliers(Rounding):
    """W8A8 but for the channels of the largest activations (LLM.int8()): arXiv:2208.07339."""

    bytes = True
    ranges = ("minmax",)
    needs_stats = True

    def matrix(self, name: str, weight: Tensor, stats: Stats | None) -> formats.Quantized:
        """The nearest values, and the columns that meet outliers as they are."""
        from infero.kernels import formats_dynamic

        assert stats is not None
        columns = outliers.outlier_columns(stats.max_abs, self.settings.threshold)
        return formats_dynamic.quantize_outliers(  # type: ignore[return-value]
            weight, columns.to(weight.device))


class Gptq(Rounding):
    """Rounding that makes up for its own error: arXiv:2210.17323."""

    needs_stats = needs_hessian = True
    ranges = ("hessian", "minmax", "percentile", "mse")

    def rounded(self, weight: Tensor, stats: Stats | None) -> codes.Codes:
        """The whole numbers of a matrix."""
        return self.compensated(weight, stats, self.settings.bits, self.settings.group)

    def compensated(self, weight: Tensor, stats: Stats | None, bits: int, group: int | None
                    ) -> codes.Codes:
        """GPTQ's numbers, with as many bits as are asked for."""
        from infero.quant import gptq

        s = self.settings
        assert stats is not None and stats.hessian is not None
        return gptq.gptq(weight, stats.hessian, bits, group, s.symmetric, act_order=s.act_order,
                         damping=s.damping, ranges=s.ranges, scale_dtype=torch.float16)  # type: ignore[arg-type]


class Qat(Rounding):
    """Layers trained through the rounding, one after another: see qat.py."""

    trains = True
    ranges = ("mse", "minmax", "percentile")

    def layer(self, model: Model, index: int, hidden: Tensor, aim: Tensor
              ) -> dict[str, formats.Quantized]:
        """The trained matrices."""
        from infero.quant import qat

        s = self.settings
        found = qat.train_layer(model, index, hidden, aim, bits=s.bits, group=s.group,
                                symmetric=s.symmetric, steps=s.steps, seed=s.seed, ranges=s.ranges)
        return {name: codes.pack(numbers, model.dtype) for name, numbers in found.items()}


class Mixed(Gptq):
    """GPTQ with more bits for the matrices whose rounding costs more: see sensitivity.py."""

    options = (3, 4, WHOLE)
    tokens = 256  # of the calibration text, to measure what each matrix costs
    bits: Sequence[int] = ()  # layer by layer, in the order of fold.MATRICES

    def begin(self, model: Model, ids: Tensor | None, say: Callable[[str], None]
              ) -> dict[str, Any]:
        """Measure what each matrix costs at each width, and share out the budget."""
        from infero.quant import sensitivity

        s = self.settings
        assert ids is not None and s.budget_bits is not None
        few = ids[: max(1, self.tokens // ids.shape[1]), : self.tokens]
        costs = sensitivity.measure(
            model, few, self.options, s.group, s.symmetric,
            progress=lambda done, layers: say(f"sensitivity {done} of {layers}"))
        bits = sensitivity.choose(costs, sensitivity.sizes_of(model), self.options, s.budget_bits)
        return {"bits": bits, "costs": costs.tolist()}

    def go_on(self, decided: dict[str, Any]) -> None:
        """Take up the bits of every matrix."""
        self.bits = decided["bits"]

    def matrix(self, name: str, weight: Tensor, stats: Stats | None) -> formats.Quantized:
        """The matrix with its own number of bits."""
        bits = self.bits[self.index * len(fold.MATRICES) + fold.MATRICES.index(name)]
        group = None if bits == WHOLE else self.settings.group
        return codes.pack(self.compensated(weight, stats, bits, group), weight.dtype)


class Awq(Rounding):
    """Channels that matter are scaled up before rounding: arXiv:2306.00978."""

    folds = needs_hessian = True

    def prepare(self, model: Model, index: int, stats: dict[str, Stats]) -> None:
        """Search factors and clipping for the layer, and fold them in."""
        from infero.quant import awq

        s = self.settings
        awq.apply(model.config, model.layers[index], stats, s.bits, s.group, s.symmetric)


METHODS: dict[str, type[Rounding]] = {
    "rtn": Rounding, "gptq": Gptq, "awq": Awq, "int8": Int8, "w8a8": W8A8,
    "smoothquant": SmoothQuant, "outliers": Outliers, "fp8": Fp8, "qat": Qat,
    "mixed": Mixed,
}


def quantizer(settings: Settings) -> Quantizer:
    """The method that the settings name."""
    return METHODS[settings.method](settings)


def wants_text(method: Quantizer) -> bool:
    """Whether a method decides by what the matrices see on a text."""
    return method.folds or method.needs_stats or method.trains


def first_not_finite(named: Sequence[tuple[str, Any]]) -> str | None:
    """The first of some tensors that holds a NaN or an infinity, in words; None if there is none.

    named: (name, tensor or anything else, which is passed over).
    """
    for name, tensor in named:
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                return f"{name} holds {bad:,} NaN or infinite numbers of {tensor.numel():,}"
    return None
