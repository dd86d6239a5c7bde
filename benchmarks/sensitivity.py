"""How much each matrix of SmolLM2 suffers from few bits, and what plans of mixed precision do.

    python -m benchmarks.sensitivity [--model PATH] [--device cuda|cpu] [--smoke] [--out DIR]

`costs`: the KL from the unquantized model when one matrix alone is rounded (to nearest, symmetric,
groups of 64 with the range of least squared error, at 8 bits a scale a row), measured on the
calibration text. `plans`: for several budgets the knapsack's plan,
its predicted cost, and what the whole model rounded by it really costs on the evaluation text;
`uniform`: the same with equal bits. Chapter 5 and its planner show them. The file is written after
every part.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import infero
from infero import evaluate, results
from infero.model import Model, ModelConfig, random_model
from infero.quant import calibration, sensitivity
from infero.quant.fold import MATRICES

GROUP = 64
OPTIONS = (2, 3, 4, 5, 6, 8)
BUDGETS = (2.25, 2.5, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0, 6.0)
MAP_BITS = 3
LENGTH = 512
SMOKE = ModelConfig("llama", 128, 64, 128, 3, 4, 2, 16, 512)


def planned(model: Model, bits: Sequence[int]) -> Model:
    """The model with every matrix rounded at its own bits, as `sensitivity.measure` rounds it."""
    each, rounded = iter(bits), sensitivity.nearest(GROUP)
    layers = []
    for layer in model.layers:
        new: dict[str, Any] = {name: rounded(getattr(layer, name), next(each))
                               for name in MATRICES}
        layers.append(replace(layer, **new))
    return replace(model, layers=layers)


def shown(done: int, layers: int) -> None:
    print(f"layer {done} of {layers}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensitivity", description=__doc__)
    parser.add_argument("--model", help="folder or .gguf file (default: infero.load's)")
    parser.add_argument("--device", choices=("cuda", "cpu"),
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model, few tokens")
    parser.add_argument("--tokens", type=int, default=4096, help="that measure a matrix's cost")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    if args.smoke:
        model = random_model(SMOKE, seed=0)
        g = torch.Generator().manual_seed(0)
        seen = torch.randint(0, 128, (2, 64), generator=g)
        unseen = torch.randint(0, 128, (256,), generator=g).tolist()
    else:
        model = infero.load(args.model, dtype="float32", device=args.device)
        text = evaluate.token_ids(model.tokenizer, "calibration")
        seen = calibration.sequences(text, LENGTH, args.tokens // LENGTH)
        unseen = evaluate.token_ids(model.tokenizer, "evaluation", 8192)
    names = [(layer, name) for layer in range(model.config.num_layers) for name in MATRICES]
    sizes = sensitivity.sizes_of(model)
    with torch.no_grad():
        costs = sensitivity.measure(model, seen, OPTIONS, GROUP, progress=shown).tolist()
        options = list(OPTIONS)
        done: dict[str, list[list[float]]] = {"plans": [], "uniform": []}
        reference = evaluate.reference(model, unseen, length=LENGTH)
        base = evaluate.evaluate(model, unseen, length=LENGTH).perplexity
        save(args, argv, names, sizes, costs, done, base, seen.numel())
        for kind, budgets in (("plans", BUDGETS), ("uniform", OPTIONS)):
            for budget in budgets:
                bits = (sensitivity.choose(costs, sizes, options, budget) if kind == "plans"
                        else [int(budget)] * len(sizes))
                predicted = sum(float(row[options.index(b)])
                                for row, b in zip(costs, bits, strict=True))
                score = evaluate.evaluate(planned(model, bits), unseen, reference, length=LENGTH)
                assert score.kl is not None and score.kl_error is not None
                used = sum(n * b for n, b in zip(sizes, bits, strict=True)) / sum(sizes)
                done[kind].append([budget, used, predicted, score.kl, score.kl_error,
                                   score.perplexity])
                print(f"{kind} {budget}: {predicted:.4f} predicted, {score.kl:.4f} measured",
                      file=sys.stderr, flush=True)
            save(args, argv, names, sizes, costs, done, base, seen.numel())


def save(args: argparse.Namespace, argv: Sequence[str] | None, names: list[tuple[int, str]],
         sizes: list[int], costs: Any, done: dict[str, list[list[float]]], base: float,
         tokens: int) -> None:
    """Write what there is so far."""
    with results.record("sensitivity", argv=argv, out=args.out, device=args.device) as r:
        rows = [[layer, name, size, bits, float(kl)]
                for (layer, name), size, row in zip(names, sizes, costs, strict=True)
                for bits, kl in zip(OPTIONS, row, strict=True)]
        r.table("costs", [("layer", ""), ("matrix", ""), ("weights", ""), ("bits", ""),
                          ("kl", "")], rows)
        for kind, lines in done.items():
            r.table(kind, [("budget", ""), ("bits", ""), ("predicted", ""), ("kl", ""),
                           ("kl_error", ""), ("perplexity", "")], lines)
        at = [kl for _, _, _, bits, kl in rows if bits == MAP_BITS]
        r.value("map_bits", MAP_BITS, unit="", note="bits of chapter 5's map of sensitivities")
        r.value("spread", max(at) / max(min(at), 1e-9), unit="",
                note="largest over smallest cost at those bits")
        r.value("base_perplexity", base, unit="", note="evaluation text, unquantized, float32")
        r.value("group", GROUP, unit="")
        r.value("tokens", tokens, unit="", note="that measured a matrix's cost")
        for kind, lines in done.items():
            for budget, _, predicted, kl, _, perplexity in lines:
                slug = f"{kind}_{budget:g}".replace(".", "_")
                r.value(f"{slug}_predicted", predicted, unit="")
                r.value(f"{slug}_kl", kl, unit="")
                r.value(f"{slug}_perplexity", perplexity, unit="")


if __name__ == "__main__":
    main()
