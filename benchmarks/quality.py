"""What each way of making SmolLM2 smaller costs: perplexity, KL, agreement, a task, bytes, seconds.

    python -m benchmarks.quality [--only int8 gptq4_g64 ...] [--model PATH] [--tokens 8192]
                                 [--device cpu|cuda] [--processes 3] [--smoke] [--out DIR]

Every method of chapters 4 and 5 starts from the same float32 weights and is judged on the same
part of the shipped evaluation text beside them; those that look at data look at the calibration
text. The arithmetic is float32 throughout, so that only the rounding under test is seen: in bf16
the arithmetic alone moves the distribution as far as good 8-bit weights do (the row bf16). The
head is rounded to int8 with the rest, except where a line says otherwise. Results are saved after
each method. GPTQ on a GPU waits for launches most of the time: with --processes several methods
run side by side, which changes no number but the seconds. Speeds are measured elsewhere
(decode_speed, cpu_decode): the column `format` says which applies.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import infero
from benchmarks import partial
from benchmarks.chapter01 import SMOKE
from benchmarks.quality_cases import CASES, Case, replaced
from infero import bench_limits, evaluate, multiple_choice, results
from infero.errors import InferoError
from infero.kernels import formats
from infero.model import Model, random_model
from infero.quant import calibration, quantizer
from infero.quant.fold import MATRICES

LENGTH = 512
CALIBRATION = 16384  # tokens
HALVES = 16.0  # bits of the scales of groups
COLUMNS = (("name", ""), ("method", ""), ("bits", ""), ("group", ""), ("symmetric", ""),
           ("activations", ""), ("bits_a_weight", ""), ("bytes", "byte"), ("perplexity", ""),
           ("perplexity_ratio", ""), ("kl", ""), ("kl_error", ""), ("top1", ""), ("task", ""),
           ("margin", ""), ("seconds", "s"), ("format", ""))


def made(case: Case, model: Model, windows: Tensor) -> Model:
    """The smaller model of a line."""
    if case.change is not None:
        return case.change(model)
    settings = quantizer.Settings(**case.settings, length=windows.shape[1],
                                  calibration_tokens=windows.numel())
    return quantizer.quantize_model(model, settings, windows)


def for_judging(model: Model) -> Model:
    """Weights that are unpacked anyway, unpacked once: the same numbers, at any speed's expense."""
    plain = (formats.Int4Weight, formats.Int8Weight, formats.Fp8Weight)

    def unpacked(weight: Any) -> Any:
        return weight.dequantize() if isinstance(weight, plain) else weight

    return replaced(model, unpacked, unpacked)


def size(case: Case, model: Model) -> tuple[float, float]:
    """(bits a weight of the layers' matrices, bytes of weights that a decode step reads).

    As the format is defined: 3 bits count as 3, though the kernels store them in 4.
    """
    matrices = [getattr(layer, name) for layer in model.layers for name in MATRICES]
    numbers = sum(math.prod(w.shape) for w in matrices)
    held = sum(w.nbytes for w in matrices)
    bits = case.bits_a_weight
    if bits is None and case.format == "int4":
        symmetric = case.settings.get("symmetric", True)
        scales = sum(w.scales.numel() for w in matrices)
        bits = case.bits + HALVES * (1 if symmetric else 2) * scales / numbers
    if case.format == "mixed":
        bits = sum(mixed_bits(w) for w in matrices) / numbers
    if bits is None:
        bits = 8 * held / numbers if case.change is None else float(case.bits)
    return bits, numbers * bits / 8 + head_bytes(case, model.head)


def mixed_bits(weight: Any) -> float:
    """Bits of a matrix with its scales; how many a weight takes is seen from its largest value."""
    if not isinstance(weight, formats.Int4Weight):
        return 8.0 * weight.nbytes
    largest = int(formats.unpack_int4(weight.words, weight.shape[1]).max())
    return math.prod(weight.shape) * largest.bit_length() + HALVES * weight.scales.numel()


def head_bytes(case: Case, head: Any) -> float:
    """Bytes of the output head: 16 bits, Q8_0, or eight bits with a float32 scale a row."""
    numbers = math.prod(head.shape)
    if case.name == "bf16":
        return 2.0 * numbers
    return 8.5 / 8 * numbers if case.name == "q4_1" else numbers + 4.0 * head.shape[0]


def judged(case: Case, small: Model, kept: evaluate.Reference, seconds: float, batch: int,
           task: bool) -> tuple[list[Any], evaluate.Score, multiple_choice.Choices | None]:
    """One row of the table, with what it was made from."""
    bits, read = size(case, small)
    model = for_judging(small)
    score = evaluate.evaluate(model, kept.ids, kept, length=kept.length, batch=batch)
    asked = task and model.tokenizer is not None
    choices = multiple_choice.answer(model, batch=4 * batch) if asked else None
    symmetric = case.settings.get("symmetric", True)
    row = [case.name, case.method, case.bits, case.group, "yes" if symmetric else "no",
           case.activations, bits, read, score.perplexity, score.perplexity_ratio, score.kl,
           score.kl_error, score.top1, None if choices is None else choices.accuracy,
           None if choices is None else choices.margin, seconds, case.format]
    finite = [None if isinstance(v, float) and not math.isfinite(v) else v for v in row]
    return finite, score, choices


def record(r: results.Recorder, case: Case, row: list[Any], score: evaluate.Score,
           choices: multiple_choice.Choices | None) -> None:
    """Values NAME_perplexity, NAME_kl and so on, for the text of the chapters."""
    by_name = dict(zip((c for c, _ in COLUMNS), row, strict=True))
    units = {"bytes": "byte", "seconds": "s"}
    for what in ("perplexity", "perplexity_ratio", "kl", "kl_error", "top1", "task", "margin",
                 "bits_a_weight", "bytes", "seconds"):
        if by_name[what] is not None:
            r.value(f"{case.name}_{what}", by_name[what], unit=units.get(what, ""),
                    n=score.tokens if what in ("perplexity", "perplexity_ratio", "kl", "top1")
                    else None)
    r.value(f"{case.name}_perplexity_ratio_error",
            (score.perplexity_ratio or 1) * (score.nll_change_error or 0), unit="")
    if choices is not None:
        r.value(f"{case.name}_task_error", choices.accuracy_error, unit="")


def verdicts(rows: dict[str, dict[str, Any]]) -> list[str]:
    """What the book expects of the methods, and whether this run shows it."""
    found = []

    def expect(words: str, holds: bool) -> None:
        found.append(f"{'holds ' if holds else 'FAILS '} {words}")

    if "int8" in rows:
        ratio = rows["int8"]["perplexity_ratio"]
        expect(f"int8, a scale a row: perplexity within 1 % (x {ratio:.4f})", abs(ratio - 1) < 0.01)
    pairs = [("smoothquant", "w8a8")]
    for tail in ("4_g64", "4_ch", "3_g64", "3_ch", "4_g64a", "3_g64a"):
        pairs += [(f"gptq{tail}", f"rtn{tail}"), (f"awq{tail}", f"rtn{tail}")]
    for better, worse in pairs:
        if better in rows and worse in rows:
            a, b = rows[better], rows[worse]
            expect(f"{better} beats {worse}: KL {a['kl']:.4f} against {b['kl']:.4f}, perplexity "
                   f"{a['perplexity']:.2f} against {b['perplexity']:.2f}",
                   a["kl"] < b["kl"] and a["perplexity"] < b["perplexity"])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    cases = [case for case in CASES if not args.only or case.name in args.only]
    with results.record("quality", argv=argv, out=args.out, device=args.device) as r:
        if args.processes > 1 or args.keep:
            failed = side_by_side(r, cases, args, argv)
        else:
            failed = one_by_one(r, cases, args, argv)
        rows = {row["name"]: row for row in records(r)}
        print("\n".join(verdicts(rows)), file=sys.stderr)
        if not rows:
            raise InferoError("No method was measured; the messages above say why.")
    if failed:
        print(f"These failed, find out why: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--model", help="the model to make smaller (default: SmolLM2)")
    parser.add_argument("--tokens", type=int, default=8192, help="of the evaluation text")
    parser.add_argument("--calibration", type=int, default=CALIBRATION,
                        help="tokens that methods may look at")
    parser.add_argument("--no-task", action="store_true", help="leave the questions out")
    parser.add_argument("--keep", metavar="DIR", type=Path,
                        help="an earlier run's --out: its other methods are taken over")
    parser.add_argument("--processes", type=int, help="methods side by side (default: 3 on a GPU "
                        "whose host has 12 cores, else 1)")
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    if args.processes is None:
        roomy = args.device == "cuda" and not args.smoke and (os.cpu_count() or 1) >= 12
        args.processes = 3 if roomy else 1
    return args


def one_by_one(r: results.Recorder, cases: Sequence[Case], args: argparse.Namespace,
               argv: Sequence[str] | None) -> list[str]:
    """Measure these lines in this process; returns the names of those that failed."""
    model, ids, windows = inputs(args)
    length, batch = windows.shape[1], 16 if args.device == "cuda" else 4
    kept = evaluate.reference(model, ids, length=length, batch=batch)
    about_reference(r, model, kept, windows, batch, not args.no_task)
    rows: list[list[Any]] = []
    failed: list[str] = []
    for case in cases:
        try:
            started = time.perf_counter()
            small = made(case, model, windows)
            if args.device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            row, score, choices = judged(case, small, kept, seconds, batch, not args.no_task)
        except InferoError as problem:
            print(f"  {case.name:<15} not made: {problem}", file=sys.stderr, flush=True)
            failed.append(case.name)
            continue
        except Exception:  # one method must not cost the others
            traceback.print_exc()
            failed.append(case.name)
            continue
        rows.append(row)
        record(r, case, row, score, choices)
        r.table("methods", COLUMNS, rows)
        print(f"  {case.name:<15} {row[6]:6.3f} bits  ppl {score.perplexity:9.3f} "
              f"(x {score.perplexity_ratio:.4f})  KL {score.kl:.5f} ± {score.kl_error:.5f}  "
              f"top-1 {score.top1:.4f}  task {choices.accuracy if choices else math.nan:.3f}  "
              f"{seconds:6.1f} s", file=sys.stderr, flush=True)
        partial.save(r, argv, args.out, args.device)
        del small
        gc.collect()
    return failed


def inputs(args: argparse.Namespace) -> tuple[Model, list[int], Tensor]:
    """The model in float32, the text that judges, and the windows that calibrate."""
    if args.smoke:
        model = random_model(SMOKE, device=args.device)
        ids = torch.randint(0, 512, (129,), generator=torch.Generator().manual_seed(0))
        return model, ids.tolist(), ids[1:].view(-1, 32)
    model = infero.load(args.model, dtype="float32", device=args.device)
    text = evaluate.token_ids(model.tokenizer, "calibration")
    windows = calibration.sequences(text, LENGTH, args.calibration // LENGTH)
    return model, evaluate.token_ids(model.tokenizer, "evaluation", args.tokens), windows


def about_reference(r: results.Recorder, model: Model, kept: evaluate.Reference, windows: Tensor,
                    batch: int, task: bool) -> None:
    """What the model is before it is made smaller."""
    base = kept.score()
    r.value("tokens", len(kept.ids), unit="token", note="of the evaluation text")
    r.value("calibration_tokens", windows.numel(), unit="token")
    r.value("base_perplexity", base.perplexity, unit="", n=base.tokens)
    r.value("base_perplexity_error", base.perplexity_error, unit="")
    r.value("base_bytes", 0.5 * bench_limits.weights_read(model), unit="byte",
            note="weights that a decode step reads, in 16 bits")
    words = ""
    if task and model.tokenizer:
        answers = multiple_choice.answer(model, batch=4 * batch)
        r.value("base_task", answers.accuracy, unit="", n=len(answers.picks))
        r.value("base_task_error", answers.accuracy_error, unit="")
        r.value("base_margin", answers.margin, unit="")
        words = f", task {answers.accuracy:.3f}"
    print(f"reference: perplexity {base.perplexity:.3f} ± {base.perplexity_error:.3f} on "
          f"{base.tokens} tokens{words}", file=sys.stderr, flush=True)


def records(r: results.Recorder) -> list[dict[str, Any]]:
    """The rows so far, by column."""
    if "methods" not in r.tables:
        return []
    return [dict(zip((c for c, _ in COLUMNS), row, strict=True))
            for row in r.tables["methods"]["rows"]]


def side_by_side(r: results.Recorder, cases: Sequence[Case], args: argparse.Namespace,
                 argv: Sequence[str] | None) -> list[str]:
    """Measure the lines in several processes, and gather what each of them has saved."""
    common = ["--tokens", str(args.tokens), "--device", args.device,
              "--calibration", str(args.calibration)]
    common += [*(["--smoke"] if args.smoke else []), *(["--no-task"] if args.no_task else []),
               *(["--model", args.model] if args.model else [])]
    with tempfile.TemporaryDirectory() as folder:
        running = []
        kept = [earlier(args.keep, Path(folder) / "kept", cases, args)] if args.keep else []
        for i in range(args.processes):
            if mine := [case.name for case in cases[i :: args.processes]]:
                place = Path(folder) / str(i)
                command = [sys.executable, "-m", "benchmarks.quality", *common,
                           "--processes", "1", "--out", str(place), "--only", *mine]
                running.append((subprocess.Popen(command), place))
        seen = -1
        while True:
            over = all(process.poll() is not None for process, _ in running)
            done = gather(r, [*kept, *(place for _, place in running)])
            if done > seen and done:
                partial.save(r, argv, args.out, args.device)
            seen = done
            if over:
                break
            time.sleep(1)
    return [case.name for case in cases if case.name not in {row["name"] for row in records(r)}]


def earlier(source: Path, target: Path, cases: Sequence[Case], args: argparse.Namespace) -> Path:
    """A copy of an earlier run's lines but for those that are measured again, to be gathered."""
    found = sorted(source.glob("*/quality.json"))
    if len(found) != 1:
        raise InferoError(f"{source} holds {len(found)} runs of this program; give --keep the "
                          "folder that was one run's --out.")
    data = json.loads(found[0].read_text(encoding="utf-8"))
    asked = {"tokens": args.tokens, "calibration_tokens": args.calibration}
    if any(data["values"][name]["value"] != wanted for name, wanted in asked.items()):
        raise InferoError(f"{found[0]} was measured on other text than --tokens {args.tokens} "
                          f"--calibration {args.calibration}: measure all methods again.")
    again = {case.name for case in cases}
    rows = data["tables"]["methods"]["rows"]
    data["tables"]["methods"]["rows"] = [row for row in rows if row[0] not in again]
    (target / "before").mkdir(parents=True)
    (target / "before" / "quality.json").write_text(json.dumps(data), encoding="utf-8")
    return target


def gather(r: results.Recorder, places: Sequence[Path]) -> int:
    """Take over what the processes have written until now; returns how many lines there are."""
    order = {case.name: i for i, case in enumerate(CASES)}
    rows = []
    for path in (path for place in places for path in place.glob("*/quality.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        r.values |= data["values"]
        rows += data["tables"].get("methods", {"rows": []})["rows"]
    if rows:
        r.table("methods", COLUMNS, sorted(rows, key=lambda row: order[row[0]]))
    return len(rows)


if __name__ == "__main__":
    sys.exit(main())
