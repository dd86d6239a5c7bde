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
from infero.compress import distill, eagle, student
from infero.engine import Engine, EngineConfig
from infero.model import Model

ROWS = 2048  # positions judged at once
DRAFTS = range(1, 9)  # draft lengths
COUNTS = (4096, 8192, 16384)  # tokens of a shortlist
REPLAYS = 200
STARTS = 16  # places of a text where a draft begins
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


def quick(draft: Model | eagle.Eagle, target: Model, batches: Sequence[distill.Example]
          ) -> tuple[float, float]:
    """(KL, acceptance at temperature 1) of a draft in training; batches bring their features."""
    kl = share = count = 0.0
    with torch.no_grad():
        for batch in batches:
            assert batch.features is not None
            with torch.autocast(target.device.type, torch.bfloat16, target.device.type == "cuda"):
                if isinstance(draft, eagle.Eagle):
                    found = eagle.states(draft, batch.ids, eagle.before(batch.features))
                else:
                    found = distill.states(draft, batch.ids)
            parts = (distill.picked(t.flatten(0, 1), batch.positions).split(ROWS)
                     for t in (found, batch.features))
            for s, t in zip(*parts, strict=True):
                mine, theirs = distill.logits(target, s), distill.logits(target, t)
                kl += float(distill.kd_loss(mine, theirs)) * len(s)
                share += float(distill.overlap(theirs.softmax(-1), mine.softmax(-1)).sum())
                count += len(s)
    return kl / count, share / count


@dataclass
class Fed:
    """A draft that reads the target's states, judged at one temperature from many starts."""

    temperature: float
    starts: int
    acceptance: list[float]  # of the first draft, the second, …, whatever became of those before
    of_texts: list[float]  # of the first draft, mean of each text
    lengths: list[float]  # tokens a pass, for each of DRAFTS


def fed(draft: eagle.Eagle, target: Model, texts: Sequence[Text], temperature: float) -> Fed:
    """Draft from STARTS places of every text, each with the target's states up to there.

    As in use, the draft goes on from its own states. Starts are drawn uniformly; a pass gives 1
    token and every draft up to the first that is refused.
    """
    depth, draw = max(DRAFTS), torch.Generator().manual_seed(5)
    shares, chances, of_texts = list[Tensor](), list[Tensor](), list[float]()
    for text in texts:
        first, last = max(text.prompt, 1) - 1, len(text.ids) - 1 - depth
        if last <= first:
            continue
        starts = (first + torch.randperm(last - first, generator=draw)[:STARTS]).to(target.device)
        ids = torch.tensor([text.ids], device=target.device)
        with torch.no_grad():
            features = distill.states(target, ids)
            rows = len(starts)
            mine = eagle.drafted(draft, ids.expand(rows, -1), features.expand(rows, -1, -1),
                                 starts, depth).flatten(0, 1)
            at = (starts[:, None] + torch.arange(depth, device=target.device)).flatten()
            share, chance, _ = _one(draft.model, target, mine, features[0, at], ids[0, at + 1],
                                    temperature, None)
        shares.append(share.view(rows, depth))
        chances.append(chance.view(rows, depth))
        of_texts.append(float(shares[-1][:, 0].mean()))
    given = 1 + torch.cat(chances).cumprod(dim=1).cumsum(dim=1)  # [starts, draft length]
    every = torch.cat(shares)
    return Fed(temperature, len(every), every.mean(0).tolist(), of_texts, given.mean(0).tolist())


# ---------------------------------------------------------------- cost


def step_s(model: Model, prompt: int = 128, new: int = 128, runs: int = 3
           ) -> tuple[list[float], list[float]]:
    """Seconds a token of one request, decoding alone: of the engine, and of the device.

    The second are replays of the captured step with nothing between, what a loop of drafts inside
    one graph would pay (where nothing is captured, the engine's times again). Any head will do: ids
    are not read. A model with a shortlist counts as one of that vocabulary.
    """
    vocab = model.head.shape[0]
    narrow = replace(model, tokenizer=None, config=replace(model.config, vocab_size=vocab))
    ids = [i % vocab for i in range(3, 3 + prompt)]
    engine = Engine(narrow, EngineConfig(max_num_seqs=1, max_model_len=prompt + new,
                                         num_blocks=-(-(prompt + new) // 16) + 2))
    whole = [seconds / (new - 1) for seconds in b.alone(engine, ids, new, runs)]
    decoder = engine.runner.decoder
    captured = [] if decoder is None else [v for k, v in decoder.captured.items()
                                           if k[0] == 1 and k[2] == "greedy"]
    if not captured:
        reason = engine.runner.plain_graphs or (decoder.problem if decoder else "")
        print(f"  nothing captured: {reason or 'no GPU'}", flush=True)
        return whole, whole
    device = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(REPLAYS):
            captured[0].graph.replay()
        end.record()
        end.synchronize()
        device.append(begin.elapsed_time(end) / 1e3 / REPLAYS)
    return whole, device


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
    run.lengths |= {f"student, {temperature}": found.lengths for temperature, found in of.items()}


def judge_fed(run: Run, path: Path) -> None:
    """The draft that reads states, as a user loads it: acceptance by depth, tokens a pass."""
    draft, rows, lengths = eagle.load(run.target, path), [], []
    for temperature in student_corpus.TEMPERATURES:
        texts = [t for t in run.judges if t.temperature == temperature]
        found = fed(draft, run.target, texts, temperature)
        if not found.starts:
            continue
        name = "greedy" if temperature == 0 else f"t{temperature * 10:02.0f}"
        run.r.value(f"eagle_acceptance_{name}", found.acceptance[0], unit="", n=found.starts,
                    note="of the first draft, after the target's own state; standard error over "
                    f"texts {error_of(found.of_texts):.4f}")
        rows.append([name, found.starts, *found.acceptance])
        lengths.append([name, found.starts, *found.lengths])
        run.lengths[f"eagle, {temperature}"] = found.lengths
        run.say(f"eagle {name}: acceptance by depth "
                f"{', '.join(f'{a:.3f}' for a in found.acceptance)}; tokens a pass "
                f"{', '.join(f'{n:.2f}' for n in found.lengths)}")
    names = [("text", ""), ("starts", "")]
    run.r.table("eagle_acceptance", names + [(f"depth_{k}", "") for k in DRAFTS], rows)
    run.r.table("eagle_tokens_a_pass", names + [(f"draft_{k}", "token") for k in DRAFTS], lengths)
    run.save()


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


def times(run: Run, path: Path, fed_path: Path | None = None) -> None:
    """A step of target, student and student with a shortlist, one request; what that promises."""
    new = 8 if run.args.smoke else 128
    draft = student.load(run.target, path)
    count = min(8192, len(student.vocabulary(path=path)))
    short = student.shortlisted(draft, student.vocabulary(count, path))
    models = {"target": run.target, "draft": draft, "short": short}
    if fed_path is not None:  # its layers; the matrix before them is one launch more
        models["eagle"] = student.load(run.target, fed_path)
    steps = dict[str, float]()
    for name, model in models.items():
        whole, device = step_s(model, min(new, 128), new)
        run.r.value(f"{name}_step", whole, unit="s", note="one request, decoding alone")
        steps[name] = run.r.value(f"{name}_device_step", device, unit="s",
                                  note="the captured step replayed, the host left out")
        run.say(f"{name}: {1e6 * statistics.median(whole):.0f} us a step, "
                f"{1e6 * steps[name]:.0f} us of the device")
        run.save()
    costs = {name: step / steps["target"] for name, step in steps.items()}
    run.r.value("cost", costs["draft"], unit="",
                note="a draft's step over a target's, of the device")
    run.r.value("shortlist_cost", costs["short"], unit="",
                note=f"the same with {count} rows of the head")
    if "eagle" in costs:
        run.r.value("eagle_cost", costs["eagle"], unit="",
                    note="of its layers; the matrix before them is one launch more")
    rows = []
    for name, lengths in run.lengths.items():
        cost = costs["eagle" if name.startswith("eagle") else "draft"]
        k, gain = best_draft(lengths, cost)
        rows.append([name, cost, k, gain])
        run.say(f"{name}: cost {cost:.3f}, best draft {k}, speed-up {gain:.2f}")
    if rows:
        run.r.table("promise", [("name", ""), ("cost", ""), ("draft", "token"), ("speed_up", "")],
                    rows)
    run.save()
