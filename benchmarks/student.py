"""Trains drafts for SmolLM2 on one GPU within a budget of seconds, and judges them.

    python -m benchmarks.student [--seconds 260] [--corpus FILE … --earlier JSON] [--workers 3]
                                 [--shape LAYERS NEURONS] [--model PATH] [--device cuda|cpu]
                                 [--smoke] [--out DIR]
    python -m benchmarks.student --times [--device cuda|cpu]     # only the time of a step, as it is

1. The target writes text through the engine (`benchmarks.student_corpus`, in several processes);
   --corpus takes what an earlier run wrote and leaves the time to training.
2. Students of several shapes, as large as the file may be, are cut out of the target and trained
   for a few seconds each; then another rate and random weights for the best.
3. What is left is for that student and for a draft that reads the target's states (EAGLE).
4. Both are written in eight bits, read back as a user would, and judged: acceptance greedily and at
   two temperatures, tokens a pass for drafts of 1 to 8, a shortlist instead of the whole
   vocabulary, the time of a step beside the target's.

Everything that is known is written after each phase. The student lies in DIR, else in the package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import student_corpus, student_judging
from benchmarks.student_run import Run, Shape, moved
from infero import graphs, load, results
from infero.compress import distill, eagle, minitron, student
from infero.lab.configurations import tiny_model
from infero.model import Model

ROOT = Path(__file__).resolve().parent.parent
DRAFT_LAYERS = (1, 2, 3, 4)
POINTS = 30  # of the curve
TRIAL = 0.025  # of the seconds: each short training
JUDGING = 40.0  # seconds kept for the end
FED_RATE = 2e-3  # learning rate of the draft that reads states: its weights start random
FED = 0.6  # its share of the training: a step goes over the text three times

# ---------------------------------------------------------------- text


def start_workers(run: Run, until: float) -> list[tuple[subprocess.Popen[bytes], Path]]:
    """Processes that write text until the clock says `until`."""
    found = []
    for i in range(run.args.workers):
        path = run.folder / f"corpus_{i}.npz"
        command = [sys.executable, "-m", "benchmarks.student_corpus", "--until", str(until),
                   "--out", str(path), "--worker", str(i)]
        command += ["--model", run.args.model] if run.args.model else []
        command += ["--device", run.args.device] if run.args.device else []
        command += ["--judge", str(run.args.judge)] if i == 0 else []
        found.append((subprocess.Popen(command, cwd=ROOT), path))
    return found


def collect(run: Run, workers: Sequence[tuple[subprocess.Popen[bytes], Path]], until: float
            ) -> None:
    """What the workers wrote; one that does not end is stopped, one that failed is left out."""
    for process, path in workers:
        try:
            process.wait(timeout=max(1.0, until + 15 - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if path.is_file():
            run.texts += student_corpus.read(path)
        else:
            run.say(f"worker {path.stem} wrote nothing (status {process.returncode})")


def text_phase(run: Run) -> None:
    """Fill run.texts and run.judges, and cut the students while others write."""
    args, r = run.args, run.r
    begun_s = time.time()
    until = run.end - args.seconds * 0.70
    if args.corpus:
        for path in args.corpus:
            run.texts += student_corpus.read(Path(path))
    workers = [] if args.corpus or not args.workers else start_workers(run, until)
    cut(run)
    if workers:
        collect(run, workers, until)
    if not any(not t.judges for t in run.texts) or not any(t.judges for t in run.texts):
        if args.smoke:
            run.texts += student_corpus.written(run.target, 16, time.time() + 300, limit=16,
                                                judges=args.judge, longest=24)
        else:
            run.texts += student_corpus.written(
                run.target, 256, time.time() + args.seconds * 0.15, judges=args.judge)
        student_corpus.save(run.texts, run.folder / "corpus_0.npz")
    run.judges = [t for t in run.texts if t.judges]
    run.texts = [t for t in run.texts if not t.judges]
    tokens = sum(t.written for t in run.texts)
    run.say(f"{len(run.texts):,} texts, {tokens:,} tokens; {len(run.judges)} for judging")
    r.value("texts", len(run.texts), unit="", note="that the target wrote for training")
    r.value("corpus_tokens", tokens, unit="token", note="written by the target, prompts left out")
    if not args.corpus:
        seconds = time.time() - begun_s
        r.value("corpus_seconds", seconds, unit="s", note="start of the processes included")
        r.value("corpus_rate", tokens / seconds, unit="token/s",
                note=f"{max(1, len(workers))} engines on one device")
    if args.earlier:
        earlier = json.loads(Path(args.earlier).read_text(encoding="utf-8"))
        for key in ("corpus_seconds", "corpus_rate"):
            old = earlier["values"][key]
            r.value(key, old["value"], unit=old["unit"],
                    note=f"{old['note']}; in the run of {earlier['date'][:16]} that wrote the text")
        r.tables["shapes"] = earlier["tables"]["ablation"]
    run.save()


def cut(run: Run) -> None:
    """Every shape cut out of the target, on the CPU, where nothing else is to do."""
    host = moved(run.target, torch.device("cpu"), torch.float32)
    if run.target.tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, run.target.config.vocab_size, (8, 24), generator=generator)
    else:
        from infero import evaluate
        from infero.quant import calibration

        count, length = (2, 32) if run.args.smoke else (16, 256)
        ids = calibration.sequences(evaluate.token_ids(run.target.tokenizer, "calibration"),
                                    length, count)
    for shape in shapes(run):
        run.cuts[shape] = minitron.prune(host, shape[0], shape[1], ids)
    run.say("cut " + ", ".join(name_of(shape) for shape in run.cuts))


def name_of(shape: Shape) -> str:
    return f"layers {' '.join(map(str, shape[0]))}, {shape[1]} neurons"


def shapes(run: Run) -> list[Shape]:
    """What is tried: the first layers, as wide as the file's limit allows, and two at both ends."""
    if run.args.shape:
        layers, neurons = run.args.shape
        return [(tuple(minitron.ends(run.target.config.num_layers, layers)), neurons)]
    full, found = run.target.config, list[Shape]()
    for layers in DRAFT_LAYERS[: 2 if run.args.smoke else None]:
        if layers > full.num_layers:
            break
        widest = next((w for w in range(full.intermediate_size, 0, -32)
                       if student.size_of(layers, w, run.target) + 4096 <= student.LIMIT_BYTES), 0)
        if widest:
            found.append((tuple(range(layers)), widest))
        if widest and layers == 2 and full.num_layers > 2:
            found.append((tuple(minitron.ends(full.num_layers, 2)), widest))
    return found


# ---------------------------------------------------------------- training


def prepare(run: Run) -> None:
    """Batches with the teacher's states, and a few of the judging part for the curve."""
    device, tokens = run.target.device, run.args.batch
    every = student_corpus.examples(run.texts, tokens, device)
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(1)).tolist()
    until = time.time() + 0.10 * run.args.seconds
    run.batches = student_corpus.with_features(run.target, [every[i] for i in order], until)
    warm = [t for t in run.judges if t.temperature == 1.0][:48]
    run.checks = student_corpus.with_features(
        run.target, student_corpus.examples(warm, tokens, device), until + 10)
    used = sum(len(b.positions) for b in run.batches if b.positions is not None)
    run.frequent = student_corpus.most_written(
        run.texts, run.target.config.vocab_size)[: student.SHORTLIST]
    run.say(f"{len(run.batches)} of {len(every)} batches have the teacher's states: "
            f"{used:,} places")
    run.r.value("train_places", used, unit="token", note="places that are learned from")
    warm_up = fresh(run, next(iter(run.cuts)))  # the first steps load and choose kernels
    distill.fit(warm_up, run.target, distill.shuffled(run.batches), distill.Recipe(), steps=3)
    student_judging.quick(warm_up, run.target, run.checks)


def fresh(run: Run, shape: Shape, random: bool = False) -> Model:
    """An untrained student of this shape on the device, sharing the target's embedding."""
    cut = run.cuts[shape]
    cut = minitron.reborn(cut) if random else minitron.folded(cut)
    there = moved(replace(cut, embedding=cut.final_norm, head=cut.final_norm),
                  run.target.device, torch.float32)
    return distill.trainable(replace(there, embedding=run.target.embedding, head=run.target.head,
                                     inv_freq=run.target.inv_freq, name=run.target.name))


def trained(run: Run, shape: Shape, recipe: distill.Recipe, seconds: float, *,
            random: bool = False, steps: int | None = None, curve: list[list[Any]] | None = None
            ) -> tuple[Model, int, int, float, float]:
    """(student, steps, tokens, KL, acceptance) after so many seconds."""
    model, told = fresh(run, shape, random), [0.0]
    begun_s = time.time()

    def seen(done: int, tokens: int, loss: float) -> None:
        now = time.time() - begun_s
        if curve is not None and (now - told[0] >= seconds / POINTS or run.args.smoke):
            told[0] = now
            curve.append([done, tokens, loss, *student_judging.quick(model, run.target,
                                                                     run.checks)])

    if curve is not None:
        curve.append([0, 0, None, *student_judging.quick(model, run.target, run.checks)])
    done, tokens = distill.fit(model, run.target, distill.shuffled(run.batches), recipe,
                               steps=steps, seconds=seconds, every=4 if run.args.smoke else 20,
                               seen=seen)
    kl, acceptance = student_judging.quick(model, run.target, run.checks)
    if curve is not None:
        curve[0][2] = curve[1][2] if len(curve) > 1 else 0.0
        if curve[-1][0] != done:
            curve.append([done, tokens, curve[-1][2], kl, acceptance])
    return model, done, tokens, kl, acceptance


def predicted(run: Run, shape: Shape, acceptance: float) -> tuple[float, float]:
    """(cost of a draft by its launches, speed-up with the best draft length) at batch 1."""
    config = run.target.config
    small = replace(config, num_layers=len(shape[0]))
    cost = graphs.launches(small) / graphs.launches(config)
    lengths = [distill.expected_length(acceptance, k) for k in student_judging.DRAFTS]
    return cost, student_judging.best_draft(lengths, cost)[1]


def choose(run: Run) -> tuple[Shape, distill.Recipe, bool]:
    """Brief trainings: shapes, then for the best of them another rate and other weights.

    The shape is chosen by predicted speed-up, the rest by acceptance.
    """
    plain = distill.Recipe(peak=run.args.rate)
    each, rows = run.args.seconds * TRIAL, list[list[Any]]()

    def tried(shape: Shape, recipe: distill.Recipe, random: bool, name: str
              ) -> tuple[float, float]:
        _, steps, tokens, kl, acceptance = trained(run, shape, recipe, each, random=random,
                                                   steps=run.args.steps)
        cost, gain = predicted(run, shape, acceptance)
        rows.append([name, len(shape[0]), shape[1], steps, tokens, kl, acceptance, cost, gain])
        run.say(f"{name}: {steps} steps, KL {kl:.3f}, acceptance {acceptance:.3f}, cost "
                f"{cost:.3f}, speed-up {gain:.2f}")
        ablation(run, rows)
        return gain, acceptance

    found = {shape: tried(shape, plain, False, name_of(shape)) for shape in run.cuts}
    shape = max(found, key=lambda one: found[one][0])
    best, chosen = found[shape][1], (shape, plain, False)
    faster = replace(plain, peak=3 * plain.peak)
    for recipe, random, words in ((faster, False, "three times the rate"),
                                  (faster, True, "three times the rate, random weights")):
        acceptance = tried(shape, recipe, random, words)[1]
        if acceptance > best:
            best, chosen = acceptance, (shape, recipe, random)
    return chosen


def ablation(run: Run, rows: list[list[Any]]) -> None:
    columns = [("name", ""), ("layers", ""), ("intermediate", ""), ("steps", ""),
               ("tokens", "token"), ("kl", ""), ("acceptance", ""), ("cost", ""),
               ("speed_up", "")]
    run.r.table("ablation", columns, rows)
    run.save()


def train(run: Run, shape: Shape, recipe: distill.Recipe, random: bool, seconds: float) -> Path:
    """The main run: the student is written, its curve recorded."""
    r, curve = run.r, list[list[Any]]()
    run.say(f"training {name_of(shape)}{' (random)' if random else ''} for {seconds:.0f} s, "
            f"{recipe}")
    model, steps, tokens, kl, _ = trained(run, shape, recipe, seconds, steps=run.args.steps,
                                          random=random, curve=curve)
    columns = [("step", ""), ("tokens", "token"), ("loss", ""), ("kl", ""), ("acceptance", "")]
    r.table("curve", columns, curve)
    r.value("train_seconds", seconds, unit="s", note="wall clock of the main run")
    r.value("train_steps", steps, unit="")
    r.value("train_tokens", tokens, unit="token", note="places that were learned from, repeats too")
    r.value("acceptance_start", curve[0][4], unit="",
            note="of the student as it was cut out, untrained; temperature 1")
    r.value("kl_start", curve[0][3], unit="", note="nats a token")
    r.value("layers", len(shape[0]), unit="")
    r.value("learning_rate", recipe.peak, unit="", note="the largest")
    r.value("random_start", int(random), unit="", note="1: not from the target's weights")
    r.value("intermediate", shape[1], unit="", note="neurons of a layer")
    r.value("parameters", student.parameters_of(model), unit="", note="embedding and head shared")
    path = run.folder / student.FILE.name
    facts = dict(program="benchmarks/student.py", steps=steps, tokens=tokens, seconds=seconds,
                 texts=len(run.texts), kl=kl)
    size = student.save(model, path, run.frequent, facts)
    r.value("bytes", size, unit="byte", note="of the file")
    run.say(f"{steps} steps, {tokens:,} tokens, KL {kl:.3f}; {size:,} bytes in {path}")
    run.save()
    return path


def train_fed(run: Run, recipe: distill.Recipe, seconds: float) -> Path:
    """The draft that reads the target's states: one layer, as wide as the other file leaves room.

    The three rounds of a step share the seconds; the loss is that of the first.
    """
    r, curve, told = run.r, list[list[Any]](), [0.0]
    wide = min(run.args.fed, run.target.config.intermediate_size)
    draft = eagle.create(run.target, 1, wide)
    begun_s = time.time()

    def seen(done: int, tokens: int, loss: float) -> None:
        now = time.time() - begun_s
        if now - told[0] >= seconds / POINTS or run.args.smoke:
            told[0] = now
            curve.append([done, tokens, loss, *student_judging.quick(draft, run.target,
                                                                     run.checks)])

    run.say(f"training a layer of {wide} neurons on states for {seconds:.0f} s, {recipe}")
    steps, tokens = eagle.fit(draft, run.target, distill.shuffled(run.batches, 3), recipe,
                              steps=run.args.steps, seconds=seconds,
                              every=4 if run.args.smoke else 20, seen=seen)
    r.table("eagle_curve", [("step", ""), ("tokens", "token"), ("loss", ""), ("kl", ""),
                            ("acceptance", "")], curve)
    path = run.folder / eagle.FILE.name
    facts = dict(program="benchmarks/student.py", steps=steps, tokens=tokens, seconds=seconds,
                 texts=len(run.texts), rounds=3)
    size = eagle.save(draft, path, run.frequent, facts)
    r.value("eagle_train_seconds", seconds, unit="s", note="wall clock")
    r.value("eagle_train_steps", steps, unit="")
    r.value("eagle_train_tokens", tokens, unit="token", note="places, repeats too")
    r.value("eagle_intermediate", wide, unit="", note="neurons of its layer")
    r.value("eagle_parameters", student.parameters_of(draft.model) + draft.fuse.numel(), unit="",
            note="embedding and head shared")
    r.value("eagle_bytes", size, unit="byte", note="of the file")
    run.say(f"{steps} steps, {tokens:,} tokens, KL {curve[-1][3]:.3f}, acceptance "
            f"{curve[-1][4]:.3f}; {size:,} bytes in {path}")
    run.save()
    return path


def guarded(run: Run, phase: Any, *given: Any) -> Any:
    """A phase whose failure must not cost what the others made."""
    try:
        return phase(run, *given)
    except Exception:
        traceback.print_exc()
        run.say(f"{phase.__name__} failed; going on")
        return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.student",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=260, help="for everything")
    parser.add_argument("--steps", type=int, help="of each training at most")
    parser.add_argument("--corpus", nargs="+", help="files of an earlier run")
    parser.add_argument("--earlier", help="the results of that run: what it says about the text "
                        "and the shapes is taken over")
    parser.add_argument("--workers", type=int, default=3, help="engines that write at once")
    parser.add_argument("--judge", type=int, default=128, help="texts at each temperature")
    parser.add_argument("--shape", type=int, nargs=2, help="layers (at both ends) and neurons")
    parser.add_argument("--fed", type=int, default=576, help="neurons of the draft on states")
    parser.add_argument("--batch", type=int, default=8192, help="tokens of a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="largest learning rate")
    parser.add_argument("--model", help="what infero.load takes (default: SmolLM2)")
    parser.add_argument("--times", action="store_true", help="train nothing: a step's time only")
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--smoke", action="store_true",
                        help="a random model (or --model) and a few steps")
    parser.add_argument("--out", help="folder for results, text and student")
    args = parser.parse_args(argv)
    begun = time.time()
    if args.smoke:
        args.seconds, args.workers, args.judge = 600.0, 0, 3
        args.batch, args.steps = 512, args.steps or 8
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.out) if args.out else Path(scratch) if args.smoke else student.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        out = args.out = args.out or (scratch if args.smoke else None)
        target = tiny_model() if args.smoke and not (args.model or args.times) else load(
            args.model, device=args.device)
        args.device = args.device or target.device.type
        with results.record("student", argv=argv, out=out, device=args.device) as r:
            if args.device == "cuda":  # the engines that write need the host too
                torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
            run = Run(args, argv, r, target, folder, begun + args.seconds)
            if args.times:
                student_judging.times(run, student.FILE,
                                      eagle.FILE if eagle.FILE.is_file() else None)
                return 0
            text_phase(run)
            prepare(run)
            shape, recipe, random = guarded(run, choose) or (
                default(run), distill.Recipe(peak=args.rate), False)
            seconds = max(1.0, run.left() - (1 if args.smoke else JUDGING))
            fed_path = guarded(run, train_fed, replace(recipe, peak=FED_RATE), FED * seconds)
            path = train(run, shape, recipe, random, (1 - FED) * seconds)
            guarded(run, student_judging.judge, path)
            if fed_path is not None:
                guarded(run, student_judging.judge_fed, fed_path)
            guarded(run, student_judging.times, path, fed_path)
    return 0


def default(run: Run) -> Shape:
    """Two layers, where nothing else was decided."""
    return next((shape for shape in run.cuts if len(shape[0]) == 2), next(iter(run.cuts)))


if __name__ == "__main__":
    sys.exit(main())
