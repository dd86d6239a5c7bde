"""Zeros for a whole model: one method, one layer at a time, on what the pruned layers before send.

    pruned = prune(model, "wanda", sparsity=0.5, ids=calibration.sequences(tokens))
    pruned = prune(model, "sparsegpt", pattern=(2, 4), ids=...)

The result has as many numbers as before, many of them 0. It is no smaller and no faster until a
format stores it otherwise: `semi_structured.sparsify` does for 2:4. Chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from infero.compress import magnitude, sparsegpt, wanda
from infero.errors import ConfigError
from infero.model import Layer, Model
from infero.quant import calibration

METHODS = ("magnitude", "wanda", "sparsegpt")
MATRICES = ("qkv", "o", "gate_up", "down")


def prune(model: Model, method: str = "wanda", sparsity: float = 0.5,
          pattern: magnitude.Pattern | None = None, ids: Tensor | None = None,
          progress: Callable[[int], None] | None = None) -> Model:
    """A model of the same shape whose layers' matrices hold zeros; `model` stays as it is.

    ids: [n, length] calibration sequences, which "wanda" and "sparsegpt" need. pattern: (n, m)
    keeps n of every m neighbours; else the share `sparsity` goes. Norms, biases, embedding and head
    stay dense.
    """
    if method not in METHODS:
        raise ConfigError(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
    if method != "magnitude" and ids is None:
        raise ConfigError(f"{method} looks at what the matrices are multiplied with: give ids, "
                          "for example calibration.sequences(tokens).")
    done = replace(model, layers=list(model.layers))
    hidden = None if ids is None or method == "magnitude" else calibration.embed(model, ids)
    for index, layer in enumerate(model.layers):
        stats = {} if hidden is None else calibration.layer_stats(done, index, hidden)
        done.layers[index] = _pruned(layer, method, sparsity, pattern, stats)
        if hidden is not None:
            hidden = calibration.advance(done, index, hidden)
        if progress is not None:
            progress(index)
    return done


def _pruned(layer: Layer, method: str, sparsity: float, pattern: magnitude.Pattern | None,
            stats: dict[str, calibration.Stats]) -> Layer:
    new: dict[str, Tensor] = {}
    for name in MATRICES:
        weight = getattr(layer, name)
        if not isinstance(weight, Tensor):
            raise ConfigError(f"{name} is stored as {type(weight).__name__}; prune first, then "
                              "quantize.")
        if method == "magnitude":
            new[name] = magnitude.prune(weight, sparsity, pattern)
        elif method == "wanda":
            new[name] = wanda.prune(weight, stats[name].mean_square, sparsity, pattern)
        else:
            hessian = stats[name].hessian
            assert hessian is not None
            new[name] = sparsegpt.prune(weight, hessian, sparsity, pattern)
    return replace(layer, **new)  # type: ignore[arg-type]


def sparsity_of(model: Model) -> float:
    """The share of zeros in the layers' matrices."""
    sizes = [(magnitude.sparsity_of(w), w.numel()) for layer in model.layers
             for name in MATRICES if isinstance(w := getattr(layer, name), Tensor)]
    return sum(share * n for share, n in sizes) / max(1, sum(n for _, n in sizes))
