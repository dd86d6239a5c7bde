"""The operations of the forward pass, and the one place where their implementation is chosen.

`infero/model.py` defines each operation in its plainest form, as chapter 1 explains it. The model
calls the function of the same name here, and the first of these that exists runs:

1. the learner's function, installed in the place of the plain one;
2. on request (`kernels="steps"`), or where a learner wrote one, the short kernels of the labs;
3. on a GPU, infero's Triton kernel (chapters 13 to 15);
4. the fastest way to say it in PyTorch (`torch_ops.py`, `paged_attention.py`, `packed.py`).

Every fast version is tested against the plain one. `forward.py` beside this file is the same
forward pass in six launches a layer, for a GPU, where nothing was replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import model
from infero.errors import ConfigError
from infero.kernels import language, packed, paged_attention, torch_ops

if TYPE_CHECKING:
    from infero.model import Batch, Model

KERNELS = ("auto", "triton", "torch", "steps")
ATTENTION_STEPS = ("flash", "paged_decode", "combine", "merge", "blockwise")
_PLAIN = vars(model)  # the model module's names, read at call time


@dataclass(frozen=True)
class Options:
    """Which implementations the forward pass may use.

    kernels: "auto" is Triton on a GPU and PyTorch on a CPU; "triton" asks for Triton everywhere (on
    a CPU it is interpreted, for tests); "torch" for PyTorch; "steps" for the labs' kernels. fuse:
    six launches a layer instead of one an operation. deterministic: the same bits whatever else is
    in the batch.
    """

    kernels: str = "auto"
    fuse: bool = True
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.kernels not in KERNELS:
            raise ConfigError(f"kernels is {self.kernels!r}; known: {', '.join(KERNELS)}.")


_options = Options()


def options() -> Options:
    """The options in force."""
    return _options


@contextmanager
def using(chosen: Options | None = None, **changes: Any) -> Iterator[Options]:
    """Other options inside, for the whole process: `with using(kernels="torch"): ...`."""
    global _options
    before = _options
    _options = replace(chosen or before, **changes)
    try:
        yield _options
    finally:
        _options = before


def triton(device: torch.device) -> bool:
    """Whether Triton kernels run on this device now."""
    kind = _options.kernels
    return language.available() and (kind == "triton" or (kind == "auto" and device.type == "cuda"))


def attends(device: torch.device) -> bool:
    """Whether Triton also does what needs tensor cores: attention and products."""
    return triton(device) and (device.type == "cpu" or language.dots(device))


# ---------------------------------------------------------------- the learner's functions


def replaced(name: str) -> bool:
    """Whether something else stands in the place of the plain `infero.model.<name>`.

    A function keeps the globals of the module that defined it, whatever name it goes by.
    """
    return getattr(_PLAIN[name], "__globals__", None) is not _PLAIN


def learners(device: torch.device) -> list[str]:
    """Functions in the forward pass that are not the engine's own, by their dotted names."""
    found = [f"infero.model.{name}" for name in ("rms_norm", "rope", "attention", "swiglu")
             if replaced(name)]
    from infero.cache import kv

    if vars(kv)["write"].__globals__ is not vars(kv):
        found.append("infero.cache.kv.write")
    return found + _learner_steps(device)


def _learner_steps(device: torch.device) -> list[str]:
    """The labs' kernels that a learner replaced; on a CPU they run only when asked for."""
    if device.type != "cuda" and _options.kernels != "steps":
        return []
    found = []
    for module, names in (("elementwise", ("rms_norm", "rope", "swiglu")),
                          ("attention", ATTENTION_STEPS)):
        loaded = sys.modules.get(f"infero.kernels.steps.{module}")
        for name in names:
            function = getattr(loaded, name, None)
            if function is not None and function.__globals__ is not vars(loaded):
                found.append(f"infero.kernels.steps.{module}.{name}")
    return found


def _step(device: torch.device, module: str, name: str, *uses: str) -> Callable[..., Any] | None:
    """The labs' kernel `name`, if it was asked for or if a learner wrote it or what it uses."""
    home = f"infero.kernels.steps.{module}"
    if _options.kernels != "steps":
        mine = _learner_steps(device) if home in sys.modules else []
        if not any(f"{home}.{one}" in mine for one in (name, *uses)):
            return None
    language.need()
    from importlib import import_module

    return getattr(import_module(home), name)


# ---------------------------------------------------------------- operations


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: [tokens, hidden] (or any leading shape) over its root mean square, times weight."""
    if replaced("rms_norm"):
        return model.rms_norm(x, weight, eps)
    if step := _step(x.device, "elementwise", "rms_norm"):
        return step(x, weight, eps)
    if triton(x.device):
        from infero.kernels import norms

        return norms.rms_norm(x, weight, eps)
    return torch_ops.rms_norm(x, weight, eps)


def rope(x: Tensor, batch: Batch, inv_freq: Tensor) -> Tensor:
    """x: [tokens, heads, dim], queries and keys together, rotated to their positions."""
    if replaced("rope"):
        return model.rope(x, batch.positions, inv_freq)
    if step := _step(x.device, "elementwise", "rope"):
        return step(x, batch.positions, inv_freq)
    if triton(x.device):
        from infero.kernels import rotary

        return rotary.rotate(x, batch.positions, inv_freq)
    key = ("rotation", id(inv_freq), x.dtype)
    rotation = batch.memo.get(key)
    if rotation is None:
        rotation = torch_ops.rotation(batch.positions, inv_freq, x.dtype)
        batch.memo[key] = rotation
    return torch_ops.rotate(x, *rotation)


def attention(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float,
              window: int | None) -> Tensor:
    """Attention of a ragged batch over the cache: q [tokens, heads, dim]; k, v of one layer."""
    if replaced("attention"):
        return model.attend(q, k, v, batch, scale, window)
    if step := _step(q.device, "attention", "attend", *ATTENTION_STEPS):
        return step(q, k, v, batch, scale, window)
    if attends(q.device):
        from infero.kernels import forward

        return forward.attend(q, k, v, batch, scale, window)
    return paged_attention.attend(q, k, v, batch, scale, window)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up: [tokens, intermediate]."""
    if replaced("swiglu"):
        return model.swiglu(gate, up)
    if step := _step(gate.device, "elementwise", "swiglu"):
        return step(gate, up)
    if triton(gate.device):
        from infero.kernels import activations

        return activations.swiglu(gate, up)
    return torch_ops.swiglu(gate, up)


def linear(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """x [tokens, in] times weight [out, in] transposed, plus bias; weight may be quantized."""
    same = _options.deterministic and attends(x.device)
    if isinstance(weight, Tensor) and not same:
        return packed.linear(x, weight, bias)
    if _options.kernels == "steps" and not isinstance(weight, Tensor):
        from infero.kernels.steps import matmul

        return matmul.linear(x, weight, bias)
    from infero.kernels import products

    return products.linear(x, weight, bias, deterministic=same)


def embed(tokens: Tensor, weight: Any) -> Tensor:
    """The rows of the embedding for tokens [tokens]: [tokens, hidden]; it may be quantized."""
    return F.embedding(tokens, weight) if isinstance(weight, Tensor) else weight.rows(tokens)


def prepare(model: Model) -> int:
    """Make now what the first step would make, and say how many bytes it takes.

    Call it before the KV cache takes what memory is left. On a CPU these are packed weights.
    """
    from infero.kernels import cpu_products, formats

    weights = [model.head]
    for layer in model.layers:
        weights += [layer.qkv, layer.o, layer.gate_up, layer.down]
    made = 0
    for weight in weights:
        if isinstance(weight, Tensor):
            made += weight.nbytes if packed.of(weight) is not None else 0
        elif isinstance(weight, (formats.Int8Weight, formats.Int4Weight)) and not (
                triton(weight.device) or weight.is_cuda):
            copy = cpu_products.of(weight)
            made += copy.nbytes if copy is not None else 0
    return made
