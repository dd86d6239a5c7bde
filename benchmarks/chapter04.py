"""The numbers of chapter 4: outliers in SmolLM2's activations, and what granularity does to them.

    python -m benchmarks.chapter04 [--smoke] [--model PATH] [--out DIR]

Runs the default model in float32 on the shipped text: what each matrix sees (largest magnitudes,
with and without the first token of a text), how large the error of eight bits is for each way of
sharing a scale, and how far the model's predictions move (KL divergence) when weights, activations
or both are rounded, with and without a cure for the outliers. Nothing here is a time, so any
machine will do; on two idle cores it takes under a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import infero
from infero import evaluate, results
from infero.kernels import formats, formats_dynamic
from infero.model import Model
from infero.quant import affine, floats, int8, outliers
from infero.quant.fold import MATRICES
from infero.quant.simulate import Rounded, replaced

Rounds = Callable[[Tensor], Tensor]
ALPHAS = (0.25, 0.5, 0.65, 0.8)
BEST_STATIC = 0.8  # alpha where activations have one fixed scale
SHOWN = (20, "qkv")  # layer and matrix whose channels are drawn


@dataclass(repr=False, eq=False)
class Watched(formats._Format):
    """A weight that notes the largest activations it meets, and rounds them if told to.

    `length` is that of the windows, whose first tokens are told apart.
    """

    weight: Tensor
    length: int = 1
    rounds: Rounds | None = None
    max_abs: Tensor | None = None  # [in]
    later_max: Tensor | None = None  # [in], without the first token of each window
    x: Tensor | None = None  # [tokens, in], where `keep` is set
    keep: bool = False

    @property
    def shape(self) -> torch.Size:
        return self.weight.shape

    def dequantize(self) -> Tensor:
        """The weight."""
        return self.weight

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x times the weight transposed, with x rounded first if `rounds` is there."""
        size = x.abs()
        later = size[torch.arange(len(x)) % self.length > 0]
        self.max_abs, self.later_max = size.amax(0), later.amax(0)
        self.x = x if self.keep else None
        return F.linear(x if self.rounds is None else self.rounds(x), self.weight, bias)


def watch(model: Model, ids: Sequence[int], length: int,
          keep: Sequence[tuple[int, str]] = ()) -> list[dict[str, Watched]]:
    """What the matrices of each layer see on a text, by their names."""
    seen = [{name: Watched(getattr(layer, name), length, keep=(i, name) in keep)
             for name in MATRICES} for i, layer in enumerate(model.layers)]
    layers = [dataclasses.replace(layer, **each)  # type: ignore[arg-type]
              for layer, each in zip(model.layers, seen, strict=True)]
    watched = dataclasses.replace(model, layers=layers)
    windows = list(torch.tensor(ids[: len(ids) // length * length]).split(length))
    # `hidden` predicts the last id of a window, so one more is hung on
    evaluate.hidden(watched, [torch.cat((w, w[:1])) for w in windows])
    return seen


def smoothed(model: Model, stats: list[dict[str, Watched]], alpha: float
             ) -> tuple[Model, list[dict[str, Tensor]]]:
    """A model that computes the same with smoother activations, and the factors of each layer."""
    layers = [dataclasses.replace(layer) for layer in model.layers]
    factors = [outliers.smooth(model.config, layer, each, alpha)  # type: ignore[arg-type]
               for layer, each in zip(layers, stats, strict=True)]
    return dataclasses.replace(model, layers=layers), factors


def scaled(cast: Rounds, largest: float) -> Rounds:
    """Rounding to a small float, each row scaled so that its largest magnitude is `largest`."""

    def rounds(x: Tensor) -> Tensor:
        scale = x.abs().amax(dim=-1, keepdim=True) / largest
        scale = torch.where(scale > 0, scale, 1.0)
        return cast(x / scale) * scale

    return rounds


def e4m3(x: Tensor) -> Tensor:
    return floats.from_e4m3(floats.to_e4m3(x))


def e5m2(x: Tensor) -> Tensor:
    return floats.from_e5m2(floats.to_e5m2(x))


def fixed(scale: Tensor) -> Rounds:
    """Rounding with one scale found beforehand."""
    return lambda x: int8.quantize_static(x, scale).float() * scale


def like(granularity: Any, bits: int = 8) -> Rounds:
    """Whole numbers and back, with scales shared as named."""
    return lambda x: affine.fake_quantize(x, bits, granularity=granularity)


def variants(model: Model, stats: list[dict[str, Watched]]) -> dict[str, Callable[[], Model]]:
    """Every way of rounding whose effect is measured, by its key."""

    def largest(i: int, n: str) -> Tensor:
        found = stats[i][n].max_abs
        assert found is not None
        return found

    def weights(rounds: Rounds) -> Callable[[], Model]:
        return lambda: replaced(model, lambda i, n, w: rounds(w))

    def activations(of: Callable[[int, str], Rounds]) -> Callable[[], Model]:
        return lambda: replaced(model, lambda i, n, w: Rounded(w, of(i, n)))

    def whole(alpha: float | None = None) -> Callable[[], Model]:
        return lambda: replaced(model if alpha is None else smoothed(model, stats, alpha)[0],
                                lambda i, n, w: formats_dynamic.quantize_w8a8(w))

    def static_smooth() -> Model:
        smooth, factors = smoothed(model, stats, BEST_STATIC)
        return replaced(smooth, lambda i, n, w: Rounded(
            like("channel")(w), fixed((largest(i, n) / factors[i][n]).amax() / 127)))

    found = {
        "w8_tensor": weights(like("tensor")),
        "w8_row": weights(like("channel")),
        "a8_static": activations(lambda i, n: fixed(largest(i, n).amax() / 127)),
        "a8_tensor": activations(lambda i, n: like("tensor")),
        "a8_token": activations(lambda i, n: like("token")),
        "a8_column": activations(lambda i, n: like("column")),
        "w8a8": whole(),
        "w8a8_outliers": lambda: replaced(model, lambda i, n, w: formats_dynamic.quantize_outliers(
            w, outliers.outlier_columns(largest(i, n)))),
        "w8a8_static_smooth": static_smooth,
        "e4m3_row": weights(scaled(e4m3, 448.0)),
        "e4m3_unscaled": weights(e4m3),
        "e5m2_row": weights(scaled(e5m2, 57344.0)),
        "e4m3_both": lambda: replaced(model, lambda i, n, w: Rounded(
            scaled(e4m3, 448.0)(w), scaled(e4m3, 448.0))),
    }
    return found | {f"w8a8_smooth_{round(100 * a)}": whole(a) for a in ALPHAS}


def outlier_tables(r: results.Recorder, seen: list[dict[str, Watched]]) -> None:
    """The largest activations of each layer and matrix, and every channel of one of them."""
    rows: list[list[Any]] = []
    for index, layer in enumerate(seen):
        for name, each in layer.items():
            assert each.max_abs is not None and each.later_max is not None
            channel = int(each.later_max.argmax())
            rows.append([index, name, float(each.max_abs.max()), float(each.later_max.max()),
                         float(each.later_max.median()), channel, int(each.max_abs.argmax())])
    names = ("layer", "matrix", "largest", "later_largest", "later_median", "channel",
             "channel_first")
    r.table("outliers", [(name, "") for name in names], rows)
    shown = seen[SHOWN[0]][SHOWN[1]]
    assert shown.later_max is not None and shown.max_abs is not None
    r.table("channels", [("channel", ""), ("later_largest", ""), ("largest", "")],
            [[k, float(shown.later_max[k]), float(shown.max_abs[k])]
             for k in range(len(shown.later_max))])
    top = int(shown.later_max.argmax())
    r.value("channel", top, unit="", note=f"input channel of layer {SHOWN[0]}'s {SHOWN[1]} with "
                                          "the largest activations")
    r.value("channel_largest", float(shown.later_max[top]), unit="")
    r.value("channel_median", float(shown.later_max.median()), unit="",
            note="median over the channels of their largest magnitude")
    r.value("channel_ratio", float(shown.later_max[top] / shown.later_max.median()), unit="")
    r.value("channel_layers", sum(int(layer["qkv"].later_max.argmax()) == top  # type: ignore[union-attr]
                                  for layer in seen), unit="",
            note="layers in which it is the largest input of qkv")
    massive = max(rows, key=lambda row: row[2] / row[3])
    r.value("massive_layer", massive[0], unit="", note=f"matrix {massive[1]}")
    r.value("massive_largest", massive[2], unit="", note="in the first token")
    r.value("massive_later", massive[3], unit="", note="in all other tokens")
    r.value("massive_channel", massive[6], unit="")


def errors(r: results.Recorder, model: Model, seen: list[dict[str, Watched]],
           kept: Sequence[tuple[int, str]]) -> None:
    """Root mean square error of eight bits over that of the numbers, by who shares a scale."""

    def relative(x: Tensor, back: Tensor) -> float:
        return float((back - x).norm() / x.norm())

    weight = getattr(model.layers[SHOWN[0]], SHOWN[1]).float()
    rows: list[list[Any]] = []
    for bits in (8, 4):
        for granularity in ("tensor", "channel", "group"):
            back = like(granularity, bits)(weight)
            rows.append([f"weight of {SHOWN[1]}, layer {SHOWN[0]}", bits, granularity,
                         relative(weight, back)])
            r.value(f"error_weight_{granularity}_{bits}", rows[-1][-1], unit="")
    for index, name in kept:
        x = seen[index][name].x
        assert x is not None
        later = torch.arange(len(x)) % seen[index][name].length > 0
        for granularity in ("tensor", "token", "column"):
            back = like(granularity)(x)
            error = relative(x[later], back[later])
            rows.append([f"input of {name}, layer {index}", 8, granularity, error])
            r.value(f"error_{name}_{granularity}", error, unit="",
                    note=f"layer {index}, first tokens left out")
    r.table("errors", [(n, "") for n in ("numbers", "bits", "granularity", "error")], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chapter04", description=__doc__)
    parser.add_argument("--device", default="cpu", help="accepted like everywhere")
    parser.add_argument("--model", help="a model's file or folder instead of the default")
    parser.add_argument("--tokens", type=int, default=640, help="tokens of the evaluation text")
    parser.add_argument("--smoke", action="store_true", help="a few tokens, to see that it runs")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    model = infero.load(args.model, dtype="float32", device=args.device)
    length = 32 if args.smoke else 320
    count = 2 * length if args.smoke else args.tokens
    ids = evaluate.token_ids(model.tokenizer, "evaluation", count + 1)
    calibration = evaluate.token_ids(model.tokenizer, "calibration", 2 * count)
    massive = min(11, model.config.num_layers - 1), "down"
    with results.record("chapter04", argv=given, out=args.out, device=args.device) as r:
        seen = watch(model, ids[:-1], length, keep=(SHOWN, massive))
        outlier_tables(r, seen)
        errors(r, model, seen, (SHOWN, massive))
        stats = watch(model, calibration, length)
        kept = evaluate.reference(model, ids, length=length)
        r.value("perplexity", kept.score().perplexity, unit="", note=f"of {count} tokens")
        rows: list[list[Any]] = []
        for name, make in variants(model, stats).items():
            score = evaluate.evaluate(make(), ids, kept, length=length)
            assert score.kl is not None and score.top1 is not None
            assert score.perplexity_ratio is not None
            rows.append([name, score.kl, score.kl_error, score.top1, score.perplexity_ratio])
            for what, value in (("kl", score.kl), ("top1", score.top1),
                                ("ratio", score.perplexity_ratio)):
                r.value(f"{name}_{what}", value, unit="")
            print(f"{name:20} KL {score.kl:.4f} top-1 {score.top1:.3f} "
                  f"perplexity x {score.perplexity_ratio:.4f}", flush=True)
        names = ("name", "kl", "kl_error", "top1", "ratio")
        r.table("variants", [(name, "") for name in names], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
