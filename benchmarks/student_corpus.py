"""The text that the student learns from, written by the target itself through the engine.

    python -m benchmarks.student_corpus --until T --out FILE [--worker I] [--judge N]

`benchmarks.student` starts a few of these at once: the host's part of a step of 512 requests takes
longer than the GPU's. Each serves 512 requests at a time until the clock (time.time()) says T,
refilling its slots in groups so that most steps are captured ones, and then writes what there is,
unfinished answers too. --judge N: first N prompts of the judging part at each temperature.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import student_prompts as prompts
from benchmarks.student_prompts import Prompt
from infero.compress import distill
from infero.engine import Engine, EngineConfig
from infero.model import Model
from infero.sampling import SamplingParams

SLOTS, GROUP = 512, 128  # requests at once; how many slots are free before any is refilled
TEMPERATURES = (0.0, 0.6, 1.0)  # that the student is judged at
WIDTHS = 32  # batches are a multiple of so many tokens wide: few shapes to allocate and tune for
SHORTEST = 8  # tokens of an answer that are worth a row


@dataclass
class Text:
    """A sequence that the target wrote: ids with their prompt, and how they were drawn."""

    ids: list[int]
    prompt: int  # tokens of it that were given
    temperature: float
    judges: bool = False  # not for training

    @property
    def written(self) -> int:
        return len(self.ids) - self.prompt


# ---------------------------------------------------------------- writing


@dataclass
class Writer:
    """An engine that is kept full of prompts."""

    engine: Engine
    group: int
    seed: int
    longest: int = 1 << 30  # tokens of an answer
    texts: dict[str, Text] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, prompt: Prompt, judges: bool = False) -> None:
        """Queue a prompt; its seed is its number's, so that a run can be repeated."""
        id, self.count = str(self.count), self.count + 1
        params = SamplingParams(temperature=prompt.temperature,
                                max_tokens=min(prompt.max_tokens, self.longest),
                                seed=self.seed * 1_000_003 + self.count)
        self.engine.add_request(id, prompt.ids, params)
        self.texts[id] = Text(list(prompt.ids), len(prompt.ids), prompt.temperature, judges)
        self.open.add(id)

    def step(self) -> None:
        """One step. The token that ends a text is not part of it."""
        for chunk in self.engine.step():
            if chunk.token is not None:
                self.texts[chunk.id].ids.append(chunk.token)
            if chunk.finish_reason is not None:
                self.open.discard(chunk.id)

    def drain(self, until: float) -> None:
        """Steps until every request has ended."""
        while self.open and time.time() < until:
            self.step()

    def write(self, source: Iterator[Prompt], until: float, limit: int | None = None) -> None:
        """Take prompts from the source until the clock says `until`, or for `limit` texts."""
        slots, left = self.engine.config.max_num_seqs, limit
        while time.time() < until and (self.open or left != 0):
            if left != 0 and len(self.open) <= slots - self.group:
                n = slots - len(self.open) if left is None else min(slots - len(self.open), left)
                for prompt in itertools.islice(source, n):
                    self.add(prompt)
                left = None if left is None else left - n
            self.step()
        self.engine.reset()
        self.open.clear()


def engine_for(model: Model, slots: int, longest: int = 704) -> Engine:
    """An engine of so many slots, each with room for the longest text.

    The model goes in without its tokenizer: nobody reads the text, and turning tokens into it would
    cost the host more than all the rest.
    """
    longest = min(longest, model.config.max_context)
    config = EngineConfig(max_num_seqs=slots, max_num_batched_tokens=max(512, 16 * slots),
                          max_model_len=longest, num_blocks=slots * -(-longest // 16) + 64)
    return Engine(replace(model, tokenizer=None), config)


def sources(model: Model, seed: int) -> tuple[Iterator[Prompt], Any]:
    """Prompts for training, and a function that gives those for judging at a temperature."""
    if model.tokenizer is None:  # a random model: random prompts
        return _random(model, seed, None), lambda n, t: list(
            itertools.islice(_random(model, 10_000 + seed, t), n))
    from infero import evaluate

    tokenizer = model.tokenizer
    train = evaluate.token_ids(tokenizer, "calibration")
    judge = evaluate.token_ids(tokenizer, "evaluation")
    return (prompts.training(tokenizer, train, seed),
            lambda n, t: prompts.judging(tokenizer, judge, n, t))


def _random(model: Model, seed: int, temperature: float | None) -> Iterator[Prompt]:
    generator = torch.Generator().manual_seed(seed)
    for i in itertools.count():
        ids = torch.randint(0, model.config.vocab_size, (4,), generator=generator).tolist()
        yield Prompt(ids, (0.6, 1.0)[i % 2] if temperature is None else temperature, 24)


def written(model: Model, slots: int, until: float, *, judges: int = 0, seed: int = 0,
            limit: int | None = None, longest: int = 1 << 30) -> list[Text]:
    """Texts by this model until the clock says `until`, those for judging first.

    limit: how many at most; longest: tokens of one at most.
    """
    engine = engine_for(model, slots)
    writer = Writer(engine, max(1, slots * GROUP // SLOTS), seed, longest)
    source, judging = sources(model, seed)
    for temperature in TEMPERATURES if judges else ():
        for prompt in judging(judges, temperature):
            writer.add(prompt, judges=True)
    writer.drain(until)
    writer.write(source, until, limit)
    return [text for text in writer.texts.values() if text.written >= SHORTEST]


# ---------------------------------------------------------------- files


def save(texts: Sequence[Text], path: Path) -> None:
    """All ids end to end in 16 bits (the vocabulary has fewer than 65,536), and their lengths."""
    ids = [token for text in texts for token in text.ids]
    np.savez_compressed(
        path, ids=np.array(ids, np.uint16),
        lengths=np.array([len(t.ids) for t in texts], np.int32),
        prompts=np.array([t.prompt for t in texts], np.int32),
        temperatures=np.array([t.temperature for t in texts], np.float32),
        judges=np.array([t.judges for t in texts], bool))


def read(path: Path) -> list[Text]:
    """What `save` wrote."""
    with np.load(path) as file:
        ids, lengths = file["ids"].tolist(), file["lengths"].tolist()
        facts = zip(lengths, file["prompts"].tolist(), file["temperatures"].tolist(),
                    file["judges"].tolist(), strict=True)
        found, at = [], 0
        for length, prompt, temperature, judges in facts:
            # float32 knows no 0.6: round it back
            found.append(Text(ids[at : at + length], prompt, round(temperature, 3), judges))
            at += length
    return found


# ---------------------------------------------------------------- batches


def examples(texts: Sequence[Text], tokens: int, device: torch.device) -> list[distill.Example]:
    """Padded batches of about `tokens` tokens, texts of like length together.

    What counts is where the target wrote, or could have, the next token: the prompt's last place
    and all of the answer, its end too, where the teacher says how probably the text ends.
    """
    order = sorted((t for t in texts if t.written > 0), key=lambda t: len(t.ids))
    found, at = list[distill.Example](), 0
    while at < len(order):
        group = [order[at]]
        while (at + len(group) < len(order)
               and (len(group) + 1) * len(order[at + len(group)].ids) <= tokens):
            group.append(order[at + len(group)])
        at += len(group)
        width = -(-max(len(t.ids) for t in group) // WIDTHS) * WIDTHS
        ids = torch.zeros(len(group), width, dtype=torch.int64)
        for row, text in enumerate(group):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
        places = [row * width + p for row, t in enumerate(group)
                  for p in range(max(t.prompt, 1) - 1, len(t.ids))]
        found.append(distill.Example(ids.to(device), torch.tensor(places).to(device)))
    return found


def with_features(teacher: Model, batches: Sequence[distill.Example], until: float
                  ) -> list[distill.Example]:
    """The batches with the teacher's states, as many as the clock allows (at least one)."""
    done = list[distill.Example]()
    for batch in batches:
        if done and time.time() > until:
            break
        done.append(replace(batch, features=distill.features_of(teacher, batch)))
        if teacher.device.type == "cuda" and len(done) % 16 == 0:
            torch.cuda.synchronize()  # or the clock would see launches only
    return done


def most_written(texts: Sequence[Text], vocab: int) -> Tensor:
    """Token ids by how often the target wrote them, most often first: [vocab] int64."""
    tokens = torch.tensor([token for text in texts for token in text.ids[text.prompt :]])
    return torch.bincount(tokens, minlength=vocab).argsort(descending=True, stable=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.student_corpus",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="what infero.load takes (default: SmolLM2)")
    parser.add_argument("--until", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--out", type=Path, required=True, help="the file, .npz")
    parser.add_argument("--worker", type=int, default=0, help="which of several: the prompts' seed")
    parser.add_argument("--judge", type=int, default=0, help="prompts of the judging part")
    parser.add_argument("--slots", type=int, default=SLOTS)
    parser.add_argument("--device", choices=["cuda", "cpu"])
    args = parser.parse_args(argv)
    from infero import load

    model = load(args.model, device=args.device)
    begun_s = time.time()
    texts = written(model, args.slots, args.until, judges=args.judge, seed=args.worker)
    save(texts, args.out)
    tokens, seconds = sum(t.written for t in texts), time.time() - begun_s
    print(f"worker {args.worker}: {len(texts):,} texts, {tokens:,} tokens in {seconds:.0f} s "
          f"({tokens / seconds:,.0f} a second)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
