"""What the student is worth as a draft, on texts of the target that it never saw.

The texts were drawn by the target, greedily and at two temperatures, from prompts of the judging
part. Target and student read them together. At each place the share of drafts that are accepted is
the sum over the vocabulary of min(p, q); how many tokens a pass of the target then gives follows
from how probably the token that stands there was drafted and accepted, min(1, q / p) of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import student_corpus
from benchmarks.student_corpus import Text
from benchmarks.student_run import Run
from infero import bench_throughput as b
from infero.compress import distill, student
from infero.engine import Engine, EngineConfig
from infero.model import Model

ROWS = 2048  # positions judged at once
DRAFTS = range(1, 9)  # draft lengths
COUNTS = (4096, 8192, 16384)  # tokens of a shortlist
SEQUENCES = 16  # texts that go through the models together


@dataclass
class Judged:
    """One temperature: shares over positions, and what a pass gives for each draft length."""

    temperature: float
    positions: int
    acceptance: float  # mean over positions
    of_texts: list[float]  # mean of each text
    kl: float  # KL(target || student) in nats a token, at temperature 1
    nll: float  # of the student on the text, nats a token, at temperature 1
    target_nll: float
    covered: float  # the target's probability of what is on the shortlist
    lengths: list[float]  # tokens a pass, for each of DRAFTS


def judged(draft: Model, target: Model, texts: Sequence[Text], temperature: float,
           shortlist: Tensor | None = None) -> Judged:
    """Read the texts with both models. A shortlist restricts what the draft can say."""
    shares, accepts, sums = list[Tensor](), list[Tensor](), torch.zeros(4, dtype=torch.float64)
    texts = [t for t in texts if t.written > 1]
    for low in range(0, len(texts), SEQUENCES):
        group = texts[low : low + SEQUENCES]
        width = max(len(t.ids) for t in group)
        ids = torch.zeros(len(group), width, dtype=torch.int64)
        for row, text in enumerate(group):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
        ids = ids.to(target.device)
        with torch.no_grad():
            s, t = distill.states(draft, ids), distill.states(target, ids)
            for row, text in enumerate(group):
                places = slice(max(text.prompt, 1) - 1, len(text.ids) - 1)
                share, accept, part = _one(draft, target, s[row, places], t[row, places],
                                           ids[row, places.start + 1 : len(text.ids)],
                                           temperature, shortlist)
                shares.append(share)
                accepts.append(accept)
                sums += part
    lengths = [len(a) for a in accepts]
    every = torch.cat(shares)
    padded = torch.nn.utils.rnn.pad_sequence(accepts, batch_first=True)
    kl, nll, target_nll, covered = (sums / len(every)).tolist()
    return Judged(temperature, len(every), float(every.mean()),
                  [float(s.mean()) for s in shares], kl, nll, target_nll, covered,
                  [student.tokens_a_pass(padded, lengths, k) for k in DRAFTS])


def _one(draft: Model, target: Model, s: Tensor, t: Tensor, came: Tensor, temperature: float,
         shortlist: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """One text: share accepted at each place, chance that what came was, and four sums."""
    shares, accepts, sums = list[Tensor](), list[Tensor](), torch.zeros(4, dtype=torch.float64)
    for s_part, t_part, token in zip(s.split(ROWS), t.split(ROWS), came.split(ROWS), strict=True):
        mine, theirs = distill.logits(draft, s_part), distill.logits(target, t_part)
        log_p, log_q = theirs.log_softmax(-1), mine.log_softmax(-1)
        p = log_p.exp()
        at = token[:, None]
        sums += torch.stack([
            (p * (log_p - log_q)).sum(), -log_q.gather(1, at).sum(), -log_p.gather(1, at).sum(),
            (p if shortlist is None else p[:, shortlist]).sum()]).double().cpu()
        if shortlist is not None:
            outside = torch.ones(mine.shape[1], dtype=torch.bool, device=mine.device)
            outside[shortlist] = False
            mine = mine.masked_fill(outside, -torch.inf)
        if temperature == 0:
            same = (mine.argmax(-1) == token).float()
            shares.append(same.cpu())
            accepts.append(same.cpu())
            continue
        p, q = (theirs / temperature).softmax(-1), (mine / temperature).softmax(-1)
        shares.append(distill.overlap(p, q).cpu())
        chance = q.gather(1, at) / p.gather(1, at).clamp(min=1e-30)
        accepts.append(chance.clamp(max=1)[:, 0].cpu())
    return torch.cat(shares), torch.cat(accepts), sums


def quick(draft: Model, target: Model, batches: Sequence[distill.Example]) -> tuple[float, float]:
    """(KL, acceptance at temperature 1) of a model in training; batches bring their targets."""
    kl = share = count = 0.0
    with torch.no_grad():
        for batch in batches:
            assert batch.positions is not None and batch.targets is not None
            cuda = draft.device.type == "cuda"
            with torch.autocast(draft.device.type, torch.bfloat16, cuda):
                found = distill.states(draft, batch.ids).flatten(0, 1)[batch.positions]
            for s, t in zip(found.split(ROWS), batch.targets.split(ROWS), strict=True):
                mine, theirs = distill.logits(draft, s), distill.logits(target, t)
                kl += float(distill.kd_loss(mine, theirs)) * len(s)
                share += float(distill.overlap(theirs.softmax(-1), mine.softmax(-1)).sum())
                count += len(s)
    return kl / count, share / count


# ---------------------------------------------------------------- cost


def step_s(model: Model, prompt: int = 128, new: int = 128, runs: int = 3) -> list[float]:
    """Seconds a token of one request, decoding alone, of each run. Any head: ids are not read.

    A model with a shortlist counts as one of that vocabulary, so that drawing costs what it would.
    """
    vocab = model.head.shape[0]
    narrow = replace(model, tokenizer=None, config=replace(model.config, vocab_size=vocab))
    ids = [i % vocab for i in range(3, 3 + prompt)]
    engine = Engine(narrow, EngineConfig(max_num_seqs=1, max_model_len=prompt + new,
                                         num_blocks=-(-(prompt + new) // 16) + 2))
    return [seconds / (new - 1) for seconds in b.alone(engine, ids, new, runs)]


def speed_up(tokens_a_pass: float, draft: int, cost: float) -> float:
    """How much faster than plain decoding: a pass costs one target step and `draft` drafts.

    cost: a draft's step in target steps. Verifying draft + 1 tokens costs the target about what one
    does, as long as it is limited by reading weights or by launches.
    """
    return tokens_a_pass / (1 + draft * cost)


def best_draft(lengths: Sequence[float], cost: float) -> tuple[int, float]:
    """(draft length, speed-up) where the speed-up is largest."""
    found = [(speed_up(n, k, cost), k) for n, k in zip(lengths, DRAFTS, strict=True)]
    gain, k = max(found)
    return k, gain


def error_of(means: Sequence[float]) -> float:
    """Standard error of a mean over texts."""
    if len(means) < 2:
        return 0.0
    return statistics.stdev(means) / len(means) ** 0.5


# ---------------------------------------------------------------- the phase


def judge(run: Run, path: Path) -> None:
    """The student as a user loads it: acceptance, tokens a pass, shortlists, time."""
    r, target = run.r, run.target
    draft = student.load(target, path)
    of, rows = {}, []
    for temperature in student_corpus.TEMPERATURES:
        texts = [t for t in run.judges if t.temperature == temperature]
        found = of[temperature] = judged(draft, target, texts, temperature)
        name = "greedy" if temperature == 0 else f"t{temperature * 10:02.0f}"
        error = error_of(found.of_texts)
        r.value(f"acceptance_{name}", found.acceptance, unit="", n=found.positions,
                note=f"share of drafted tokens, over places; standard error over texts {error:.4f}")
        rows.append([name, found.positions, found.acceptance, error, *found.lengths])
        run.say(f"{name}: acceptance {found.acceptance:.3f}, tokens a pass "
                f"{', '.join(f'{n:.2f}' for n in found.lengths)}")
    names = [("text", ""), ("positions", ""), ("acceptance", ""), ("error", "")]
    r.table("tokens_a_pass", names + [(f"draft_{k}", "token") for k in DRAFTS],
            rows)
    one = of[1.0]
    r.value("acceptance", one.acceptance, unit="", n=one.positions, note="at temperature 1")
    r.value("kl", one.kl, unit="", note="KL(target || student), nats a token, the target's text")
    r.value("perplexity", torch.tensor(one.nll).exp().item(), unit="",
            note="of the student on the target's text at temperature 1")
    r.value("teacher_perplexity", torch.tensor(one.target_nll).exp().item(), unit="",
            note="of the target on its own text at temperature 1")
    run.save()
    shortlists(run, path, draft, of)
    other_text(run, draft)
    times(run, path, draft, of)


def shortlists(run: Run, path: Path, draft: Model, of: dict[float, Any]) -> None:
    rows, vocab = [], run.target.config.vocab_size
    for count in (*[c for c in COUNTS if c < vocab], vocab):
        ids = None if count == vocab else student.vocabulary(count, path).to(draft.device)
        every = {t: judged(draft, run.target,
                                           [x for x in run.judges if x.temperature == t], t, ids)
                 for t in student_corpus.TEMPERATURES} if ids is not None else of
        rows.append([count, every[1.0].covered, *[every[t].acceptance for t in every]])
        run.say(f"shortlist {count}: covers {rows[-1][1]:.4f}, acceptance "
                f"{', '.join(f'{a:.3f}' for a in rows[-1][2:])}")
        if count == 8192:
            run.r.value("shortlist_covered", every[1.0].covered, unit="",
                        note="the target's probability of the 8,192 tokens it writes most")
            run.r.value("shortlist_acceptance", every[1.0].acceptance, unit="",
                        note="at temperature 1, with those tokens only")
    run.r.table("shortlist", [("entries", ""), ("covered", ""), ("greedy", ""), ("t06", ""),
                              ("t10", "")], rows)
    run.save()


def other_text(run: Run, draft: Model) -> None:
    """Acceptance on prose that the target did not write."""
    if run.target.tokenizer is None:
        return
    from infero import evaluate

    ids = evaluate.token_ids(run.target.tokenizer, "evaluation")
    texts = [Text(list(ids[at : at + 256]), 1, 1.0) for at in range(0, len(ids) - 256, 256)]
    found = judged(draft, run.target, texts[: 8 if run.args.smoke else 64], 1.0)
    run.r.value("acceptance_prose", found.acceptance, unit="", n=found.positions,
                note="temperature 1, along the book's own prose, which the target did not write")
    run.say(f"on the book's prose: acceptance {found.acceptance:.3f}")


def times(run: Run, path: Path, draft: Model, of: dict[float, Any]) -> None:
    """A step of target, student and student with a shortlist, one request; what that promises."""
    new = 8 if run.args.smoke else 128
    count = min(8192, len(student.vocabulary(path=path)))
    short = student.shortlisted(draft, student.vocabulary(count, path))
    models = {"target": run.target, "draft": draft, "short": short}
    samples = {name: step_s(model, min(new, 128), new)
               for name, model in models.items()}
    for name, found in samples.items():
        run.r.value(f"{name}_step", found, unit="s", note="one request, decoding alone")
    middle = {name: statistics.median(found) for name, found in samples.items()}
    run.say(", ".join(f"{name} {1e6 * s:.0f} us a step" for name, s in middle.items()))
    run.r.value("cost", middle["draft"] / middle["target"], unit="",
                note="a draft's step over a target's")
    run.r.value("shortlist_cost", middle["short"] / middle["target"], unit="",
                note=f"the same with {count} rows of the head")
    rows = []
    for temperature, found in of.items():  # empty where only times were asked for
        cost = middle["draft"] / middle["target"]
        k, gain = best_draft(found.lengths, cost)
        rows.append([temperature, cost, k, gain])
        run.say(f"temperature {temperature}: cost {cost:.3f}, best draft {k}, speed-up {gain:.2f}")
    if rows:
        run.r.table("promise", [("temperature", ""), ("cost", ""), ("draft", "token"),
                                ("speed_up", "")], rows)
    run.save()
