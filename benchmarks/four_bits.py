"""The numbers of chapter 5 that need no clock: what rounding does to weights and to outputs.

    python -m benchmarks.four_bits [--model PATH] [--device cuda|cpu] [--smoke] [--out DIR]

`grid`: the relative error of every matrix of the model, rounded to nearest at four bits over group
sizes, with and without a zero point. `formats`: block formats on the model's weights and on normal
numbers. `layers`: the relative error of the *output* of some layers' matrices on the evaluation
text, for round-to-nearest, GPTQ and AWQ, both calibrated on the calibration text. `exponents`:
AWQ's search for one matrix. `factors`: what GPTQ's damping does.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import infero
from infero import evaluate, results
from infero.model import Model, ModelConfig, random_model
from infero.quant import affine, awq, blocks, calibration, codes, fold, gptq

GROUPS = (32, 64, 96, 192, None)
SETTINGS = ((4, 64), (4, None), (3, 64), (3, None), (2, 64))  # bits, group; symmetric
LENGTH = 512
SMOKE = ModelConfig("llama", 512, 192, 384, 3, 6, 2, 32, 2048)


def named(group: int | None) -> str:
    return "channel" if group is None else f"g{group}"


def relative(change: Tensor, whole: Tensor) -> float:
    """|change| / |whole|, by squares."""
    return float(change.float().norm() / whole.float().norm())


def grid(r: results.Recorder, model: Model) -> None:
    """Rounding to nearest at four bits: errors of the weights themselves."""
    rows = []
    for symmetric in (False, True):
        for group in GROUPS:
            lost = total = 0.0
            for layer in model.layers:
                for name in fold.MATRICES:
                    w = getattr(layer, name).float()
                    back = affine.rtn(w, 4, group, symmetric).dequantize()
                    lost += float((back - w).square().sum())
                    total += float(w.square().sum())
            error = math.sqrt(lost / total)
            kind = "symmetric" if symmetric else "asymmetric"
            width = group or model.config.hidden_size
            bits = codes.bits_a_weight(4, width, symmetric)
            rows.append([kind, named(group), bits, error])
            r.value(f"{'sym' if symmetric else 'asym'}_{named(group)}", error, unit="",
                    note=f"relative error of the weights, 4 bits, {kind}, {named(group)}")
    r.table("grid", [("kind", ""), ("group", ""), ("bits", ""), ("error", "")], rows)


def formats(r: results.Recorder, model: Model) -> None:
    """Block formats on the model's weights, and on normal numbers that know no grid."""
    w = torch.cat([model.layers[i].gate_up.float().flatten() for i in (0, len(model.layers) // 2)])
    w = w[: len(w) // 576 * 576].view(-1, 576)
    normal = torch.randn(4096, 576, generator=torch.Generator().manual_seed(0)).to(w.device)
    heavy = normal * (1 + (torch.rand(normal.shape, generator=torch.Generator().manual_seed(1))
                           .to(w.device) < 0.002) * 10)
    rows = []
    functions = {name: (f, bits) for name, (f, bits) in blocks.FORMATS.items()}
    functions["INT4 g64"] = (lambda x: affine.rtn(x, 4, 64).dequantize(), 4.25)
    functions["INT4 g32"] = (lambda x: affine.rtn(x, 4, 32).dequantize(), 4.5)
    for name, (function, bits) in sorted(functions.items(), key=lambda item: (item[1][1], item[0])):
        errors = [relative(function(x) - x, x) for x in (w, normal, heavy)]
        rows.append([name, bits, *errors])
        slug = name.lower().replace(" ", "_")
        for kind, error in zip(("model", "normal", "outliers"), errors, strict=True):
            r.value(f"{slug}_{kind}", error, unit="", note=f"relative error of {name} on {kind}")
    r.table("formats", [("format", ""), ("bits", ""), ("model", ""), ("normal", ""),
                        ("outliers", "")], rows)


def rounded(method: str, w: Tensor, stats: calibration.Stats, bits: int,
            group: int | None) -> Tensor:
    """The matrix as one of the methods stores it, in numbers again."""
    if method == "gptq":
        assert stats.hessian is not None
        return gptq.gptq(w, stats.hessian, bits, group).dequantize()
    if method == "awq":
        s = awq.search(w, stats.rows, stats.mean_abs, bits, group)
        return affine.rtn(w * s, bits, group).dequantize() / s
    return affine.rtn(w, bits, group).dequantize()


def layers(r: results.Recorder, model: Model, seen: Tensor, unseen: Tensor,
           every: int) -> None:
    """Errors of outputs, on the text that calibrated and on text that did not."""
    rows, sums = [], {}
    for index in range(model.config.num_layers):
        if index % every == 0:
            before = calibration.layer_stats(model, index, seen)
            after = calibration.layer_stats(model, index, unseen)
            for name in fold.MATRICES:
                w = getattr(model.layers[index], name).float()
                fresh, known = after[name].hessian, before[name].hessian
                assert fresh is not None and known is not None
                for bits, group in SETTINGS:
                    for method in ("rtn", "gptq", "awq"):
                        change = rounded(method, w, before[name], bits, group) - w
                        errors = [math.sqrt(gptq.output_error(change, h)
                                            / gptq.output_error(w, h)) for h in (fresh, known)]
                        key = f"{method}{bits}_{named(group)}"
                        rows.append([index, name, method, bits, named(group), *errors])
                        sums.setdefault(key, []).append((*errors, relative(change, w)))
            print(f"layer {index}", file=sys.stderr, flush=True)
            if index // every == 1:
                exponents(r, model, index, before, after)
        seen, unseen = (calibration.advance(model, index, h) for h in (seen, unseen))
    for key, errors in sums.items():
        for what, at in (("", 0), ("_calibration", 1), ("_weights", 2)):
            r.value(f"{key}{what}", math.exp(sum(math.log(e[at]) for e in errors) / len(errors)),
                    unit="", note="geometric mean over matrices of the relative error"
                    + (" on the calibration text", " of the weights", " of the output on unseen "
                       "text")[(at + 2) % 3])
    r.table("layers", [("layer", ""), ("matrix", ""), ("method", ""), ("bits", ""), ("group", ""),
                       ("error", ""), ("error_calibration", "")], rows)


def exponents(r: results.Recorder, model: Model, index: int,
              before: dict[str, calibration.Stats], after: dict[str, calibration.Stats]) -> None:
    """AWQ's exponent against the error, and GPTQ's damping, at three bits in groups of 64."""
    w, stats = model.layers[index].qkv.float(), before["qkv"]
    hessian = after["qkv"].hessian
    assert stats.hessian is not None and hessian is not None
    whole = gptq.output_error(w, hessian)
    rows = []
    for i in range(21):
        s = stats.mean_abs ** (i / 20)
        s = s / (s.max() * s.min()).sqrt()
        change = affine.rtn(w * s, 3, 64).dequantize() / s - w
        rows.append([i / 20, math.sqrt(gptq.output_error(change, hessian) / whole),
                     relative(change, w)])
    r.table("exponents", [("exponent", ""), ("error", ""), ("error_weights", "")], rows)
    best = min(rows, key=lambda row: row[1])
    r.value("exponent_best", best[0], unit="", note=f"qkv of layer {index}, 3 bits, groups of 64")
    r.value("exponent_gain", rows[0][1] / best[1], unit="", note="error at 0 over the least one")
    tried = []
    for damping in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0):
        made = gptq.gptq(w, stats.hessian, 3, 64, damping=damping).dequantize() - w
        tried.append([damping, *(math.sqrt(gptq.output_error(made, h) / gptq.output_error(w, h))
                                 for h in (hessian, stats.hessian))])
    r.table("damping", [("damping", ""), ("error", ""), ("error_calibration", "")], tried)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.four_bits", description=__doc__)
    parser.add_argument("--model", help="folder or .gguf file (default: infero.load's)")
    parser.add_argument("--device", choices=("cuda", "cpu"),
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model")
    parser.add_argument("--tokens", type=int, default=16_384, help="of the calibration text")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    if args.smoke:
        model = random_model(SMOKE, seed=0)
        g = torch.Generator().manual_seed(0)
        seen, unseen = (torch.randint(0, 512, (n, 64), generator=g) for n in (16, 8))
    else:
        model = infero.load(args.model, dtype="float32", device=args.device)
        seen, unseen = (calibration.sequences(evaluate.token_ids(model.tokenizer, split), LENGTH,
                                              count // LENGTH)
                        for split, count in (("calibration", args.tokens), ("evaluation", 8192)))
    every = 1 if args.smoke else 4
    whole = results.Recorder("four_bits")

    def save() -> None:
        with results.record("four_bits", argv=argv, out=args.out, device=args.device) as r:
            r.values.update(whole.values)
            r.tables.update(whole.tables)

    with torch.no_grad():
        whole.value("calibration_tokens", seen.numel(), unit="")
        whole.value("matrices", 4 * -(-model.config.num_layers // every), unit="",
                    note="matrices whose outputs were compared")
        grid(whole, model)
        formats(whole, model)
        save()
        layers(whole, model, calibration.embed(model, seen), calibration.embed(model, unseen),
               every)
        save()


if __name__ == "__main__":
    main()
