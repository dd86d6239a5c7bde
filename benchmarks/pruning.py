"""What pruning costs: SmolLM2 with zeros, with fewer layers, heads and neurons.

    python -m benchmarks.pruning [--model PATH] [--only zeros layers width] [--tokens 8192]
        [--smoke] [--out DIR]

Every pruned model is compared with the original on the evaluation text: perplexity, KL divergence,
agreement. Masks and refits are made from the calibration text. `zeros`: magnitude, Wanda and
SparseGPT at several sparsities and as 2:4 and 4:8. `layers`: the block influence of each layer, how
long it leaves the first token and the others, the model without each, and without the least
important ones. `width`: neurons and groups of heads taken out, with and without refitting. All in
float32. Chapter 6 quotes the results. --smoke: a few hundred tokens of a tiny random model.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import partial
from infero import evaluate, results
from infero.compress import pruning, structured
from infero.model import Model, ModelConfig, random_model
from infero.quant import calibration

SMOKE = ModelConfig("llama", 64, 32, 64, 4, 4, 2, 8, 512, tie_embeddings=True)
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SURGEON = (0.5, 0.7)  # the sparsities of SparseGPT, which takes some seconds each
PATTERNS = ((2, 4), (4, 8))
DROPPED = (1, 2, 3, 4, 6, 8, 10)
PARTS = ("zeros", "layers", "width")
COLUMNS = [("perplexity", ""), ("kl", ""), ("top1", "")]


@dataclass
class Bench:
    """The model, what calibrates, and the text that judges, with the original's answer."""

    r: results.Recorder
    model: Model
    windows: Tensor  # [n, length]
    ids: list[int]
    kept: evaluate.Reference
    length: int

    def score(self, name: str, model: Model) -> list[float]:
        """Values NAME_perplexity, _kl and _top1, which are returned."""
        s = evaluate.evaluate(model, self.ids, self.kept, length=self.length, batch=8)
        assert s.kl is not None and s.top1 is not None
        found = [min(s.perplexity, 1e9), s.kl, s.top1]
        if not all(math.isfinite(v) for v in found):
            raise RuntimeError(f"{name} gives no finite score: {found}.")
        for key, value, error in zip(("perplexity", "kl", "top1"), found,
                                     (s.perplexity_error, s.kl_error, s.top1_error), strict=True):
            self.r.value(f"{name}_{key}", value, unit="", n=s.tokens,
                         note=f"standard error {error:.2g}")
        print(f"  {name:<28} perplexity {found[0]:9.2f}  KL {found[1]:.4f}  "
              f"same {100 * found[2]:.0f} %", file=sys.stderr, flush=True)
        return found


def zeros(b: Bench, smoke: bool) -> None:
    """Table `zeros`: every method at every sparsity and pattern, with the seconds it took."""
    rows = list[list[object]]()
    jobs: list[tuple[str, float, tuple[int, int] | None]] = []
    for method in pruning.METHODS:
        shares = SURGEON if method == "sparsegpt" else SPARSITIES
        jobs += [(method, share, None) for share in (shares[-1:] if smoke else shares)]
        jobs += [(method, 0.5, p) for p in PATTERNS if method != "sparsegpt" or p == (2, 4)]
    for method, share, pattern in jobs:
        start = time.perf_counter()
        pruned = pruning.prune(b.model, method, share, pattern, b.windows)
        sparsity = pruning.sparsity_of(pruned)
        seconds = time.perf_counter() - start
        label = f"{round(100 * share)}" if pattern is None else f"{pattern[0]}_{pattern[1]}"
        found = b.score(f"{method}_{label}", pruned)
        words = "free" if pattern is None else f"{pattern[0]}:{pattern[1]}"
        rows.append([method, words, share, sparsity, *found, seconds])
        b.r.table("zeros", [("method", ""), ("pattern", ""), ("asked", ""), ("sparsity", ""),
                            *COLUMNS, ("seconds", "s")], rows)


def layers(b: Bench, smoke: bool) -> None:
    """Tables `influence` (layer by layer) and `dropped` (the least important ones together)."""
    importance = structured.layer_importance(b.model, b.windows)
    count, hidden = b.model.config.num_layers, calibration.embed(b.model, b.windows)
    rows, lengths = list[list[object]](), list[list[object]]()
    for index in range(count):
        after = calibration.advance(b.model, index, hidden)
        first, others = after[:, 0], after[:, 1:]
        lengths.append([index, float(first.norm(dim=-1).mean()), float(others.norm(dim=-1).mean()),
                        structured.block_influence(hidden[:, 0], first)])
        hidden = after
    b.r.table("lengths", [("layer", ""), ("first", ""), ("others", ""), ("first_influence", "")],
              lengths)
    for index in range(count):
        without = structured.keep_layers(b.model, [i for i in range(count) if i != index])
        rows.append([index, importance[index], *b.score(f"without_{index}", without)])
    b.r.table("influence", [("layer", ""), ("influence", ""), *COLUMNS], rows)
    dropped = list[list[object]]()
    for number in (n for n in ((1, 2) if smoke else DROPPED) if n < count):
        smaller = structured.drop_layers(b.model, number, importance)
        dropped.append([number, float(smaller.parameter_bytes()),
                        *b.score(f"dropped_{number}", smaller)])
    b.r.table("dropped", [("layers", ""), ("bytes", "byte"), *COLUMNS], dropped)
    best = min(rows, key=lambda row: float(row[3]))  # type: ignore[arg-type]
    b.r.value("least_needed_layer", float(best[0]), unit="",  # type: ignore[arg-type]
              note="whose absence costs the least KL")
    b.r.value("least_influence_layer", float(min(range(count), key=importance.__getitem__)),
              unit="", note="of the least block influence")


def width(b: Bench, smoke: bool) -> None:
    """Table `width`: fewer neurons, fewer groups of heads, with and without refitting."""
    c, rows = b.model.config, list[list[object]]()
    jobs = [("neurons", {"intermediate": round(c.intermediate_size * share / 32) * 32}, share)
            for share in ((0.5,) if smoke else (0.9, 0.75, 0.5))]
    jobs.append(("heads", {"kv_heads": c.num_kv_heads - 1}, 1 - 1 / c.num_kv_heads))
    for kind, sizes, share in jobs:
        for refitted in (False, True):
            smaller = structured.narrow(b.model, b.windows, refitted=refitted, **sizes)
            label = f"{kind}_{round(100 * share)}{'_refitted' if refitted else ''}"
            rows.append([kind, share, "refitted" if refitted else "as they were",
                         float(smaller.parameter_bytes()), *b.score(label, smaller)])
    b.r.table("width", [("what", ""), ("kept", ""), ("columns", ""), ("bytes", "byte"), *COLUMNS],
              rows)


def bench(r: results.Recorder, args: argparse.Namespace) -> Bench:
    """The model and its texts."""
    if args.smoke:
        model = random_model(SMOKE, device=args.device)
        draw = torch.Generator().manual_seed(0)
        text, ids = (torch.randint(0, 64, (n,), generator=draw) for n in (512, 257))
        windows, length = calibration.sequences(text, 64, 4), 64
    else:
        import infero

        model = infero.load(args.model, dtype="float32", device=args.device)
        ids = torch.tensor(evaluate.token_ids(model.tokenizer, "evaluation", args.tokens + 1))
        text = torch.tensor(evaluate.token_ids(model.tokenizer, "calibration"))
        windows, length = calibration.sequences(text, 512, args.windows), 512
    kept = evaluate.reference(model, ids, length=length, batch=8)
    r.value("base_perplexity", kept.score().perplexity, unit="", n=len(ids) - 1)
    r.value("base_bytes", model.parameter_bytes(), unit="byte", note="in float32")
    r.value("calibration_tokens", windows.numel(), unit="token")
    return Bench(r, model, windows, ids.tolist(), kept, length)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a hub id, folder or .gguf file (default: SmolLM2)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tokens", type=int, default=8192, help="of the evaluation text")
    parser.add_argument("--windows", type=int, default=32, help="of 512 calibration tokens")
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny model: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    torch.backends.cuda.matmul.allow_tf32 = False
    parts: dict[str, Callable[[Bench, bool], None]] = {"layers": layers, "width": width,
                                                       "zeros": zeros}
    with torch.no_grad(), results.record("pruning", argv=argv, out=args.out,
                                                device=args.device) as r:
        b = bench(r, args)
        for name, part in parts.items():
            if name in args.only:
                start = time.perf_counter()
                part(b, args.smoke)
                print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
                partial.save(r, argv, args.out, args.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
