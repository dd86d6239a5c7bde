"""What the phases of benchmarks/student.py share, and how the budget of seconds is kept."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import partial
from benchmarks.student_corpus import Text
from infero import results
from infero.compress import distill
from infero.model import Model

Shape = tuple[tuple[int, ...], int]  # indexes of the target's layers, neurons of each


@dataclass
class Run:
    """What the phases share."""

    args: argparse.Namespace
    argv: Sequence[str] | None
    r: results.Recorder
    target: Model
    folder: Path  # for corpus and student
    end: float  # time.time() when all must be over
    texts: list[Text] = field(default_factory=list)
    judges: list[Text] = field(default_factory=list)
    batches: list[distill.Example] = field(default_factory=list)
    checks: list[distill.Example] = field(default_factory=list)
    frequent: Tensor = field(default_factory=lambda: torch.empty(0))  # tokens, most frequent first
    lengths: dict[str, list[float]] = field(default_factory=dict)  # tokens a pass, as judged
    cuts: dict[Shape, Model] = field(default_factory=dict)  # pruned, on the CPU

    def left(self) -> float:
        return self.end - time.time()

    def save(self) -> None:
        partial.save(self.r, self.argv, self.args.out, self.args.device)

    def say(self, words: str) -> None:
        print(f"  [{self.args.seconds - self.left():5.0f} s] {words}", file=sys.stderr, flush=True)


def moved(model: Model, device: torch.device, dtype: torch.dtype) -> Model:
    """The model on another device in another dtype; embedding and head stay one object."""
    embedding = model.embedding.to(device, dtype)
    head = embedding if model.head is model.embedding else model.head.to(device, dtype)
    layers = [replace(layer, **{name: t.to(device, dtype) for name, t in vars(layer).items()
                                if t is not None}) for layer in model.layers]
    return replace(model, embedding=embedding, head=head, layers=layers,
                   final_norm=model.final_norm.to(device, dtype),
                   inv_freq=model.inv_freq.to(device))
