"""A zero-shot task: which of four answers does the model find the likeliest?

150 simple questions of science and everyday life, written for this book. A model reads "Question:
... Answer:" and each answer in turn. Its choice is the answer with the greatest log-probability a
byte: without the division, short answers would win (the `acc_norm` of common harnesses). Nothing
is generated and no letter has to be chosen, which models of this size cannot do. Chapter 4 explains
why such a task moves later than KL divergence does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from infero import evaluate
from infero.errors import ConfigError, LoadError, ParameterError
from infero.model import Model

OPTIONS = 4
CHANCE = 1 / OPTIONS


@dataclass(frozen=True)
class Question:
    """A question and its answers; the first one is right."""

    text: str
    options: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """What the model reads before an answer."""
        return f"Question: {self.text}\nAnswer:"


@dataclass(frozen=True)
class Choices:
    """What a model chose: `picks[i]` is an option's number, 0 the right one.

    margins[i]: log-probability a byte of the right answer minus that of the best wrong one, in
    nats; it moves long before a choice does.
    """

    picks: list[int]
    margins: list[float]

    @property
    def accuracy(self) -> float:
        """The share of questions answered rightly; chance is a quarter."""
        return self.picks.count(0) / len(self.picks)

    @property
    def accuracy_error(self) -> float:
        """Standard error of the accuracy, as of a proportion."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / len(self.picks))

    @property
    def margin(self) -> float:
        """Mean of the margins, in nats a byte."""
        return sum(self.margins) / len(self.margins)

    def agreement(self, other: Choices) -> float:
        """The share of questions for which both chose the same answer, right or wrong."""
        same = [a == b for a, b in zip(self.picks, other.picks, strict=True)]
        return sum(same) / len(same)


@cache
def questions() -> tuple[Question, ...]:
    """The shipped questions."""
    path = Path(__file__).parent / "data" / "questions.txt"
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        text, *options = (part.strip() for part in line.split("|"))
        if len(options) != OPTIONS or not all(options):
            raise LoadError(f"{path}, line {number}: {len(options)} answers, but a question has "
                            f"{OPTIONS}; install the package again.")
        found.append(Question(text, tuple(options)))
    return tuple(found)


def answer(model: Model, asked: Sequence[Question] | None = None, *, batch: int = 8,
           progress: Callable[[int, int], None] | None = None) -> Choices:
    """What the model chooses for each question, `batch` questions at a time (default: all shipped).

    The numbers do not depend on `batch`. progress(done, all) is called after each batch.
    """
    asked = questions() if asked is None else asked
    if not asked or batch < 1:
        raise ParameterError(f"{len(asked)} questions in batches of {batch}: give at least 1 each.")
    scores: list[list[float]] = []
    for first in range(0, len(asked), batch):
        scores += option_scores(model, asked[first : first + batch])
        if progress is not None:
            progress(len(scores), len(asked))
    picks = [max(range(len(s)), key=s.__getitem__) for s in scores]
    return Choices(picks, [s[0] - max(s[1:]) for s in scores])


def option_scores(model: Model, asked: Sequence[Question]) -> list[list[float]]:
    """Log-probability a byte, in nats, of every option of some questions."""
    if model.tokenizer is None:
        raise ConfigError("The model has no tokenizer, so it cannot read questions; load it from a "
                          "folder with tokenizer.json or from a GGUF file.")
    encode = model.tokenizer.encode
    windows, first = [], 0
    rows, targets, owners = list[int](), list[int](), list[int]()
    for question in asked:
        prompt = encode(question.prompt)
        for option in question.options:
            continuation = encode(" " + option)
            window = torch.tensor(prompt + continuation)
            windows.append(window)
            rows += range(first + len(prompt) - 1, first + len(window) - 1)
            targets += continuation
            owners += [len(windows) - 1] * len(continuation)
            first += len(window) - 1
    states = evaluate.hidden(model, windows)
    picked: list[float] = []
    for part in torch.tensor(rows, device=states.device).split(evaluate.GPU_ROWS):
        logp = evaluate.logprobs(model, states[part])
        wanted = torch.tensor(targets[len(picked) : len(picked) + len(part)], device=logp.device)
        picked += logp.gather(1, wanted[:, None])[:, 0].tolist()
    sums = [0.0] * len(windows)
    for owner, value in zip(owners, picked, strict=True):
        sums[owner] += value
    options = [option for question in asked for option in question.options]
    each = [total / len(option.encode()) for total, option in zip(sums, options, strict=True)]
    return [each[i : i + OPTIONS] for i in range(0, len(each), OPTIONS)]
