"""A draft that also reads the target's last hidden state, after EAGLE (arXiv:2401.15077).

A small model must work out from the tokens alone what the text is about. The target knows it
already: its state at the place before, the one its head read, says a lot about what comes after the
next token. So this draft's layers see two things at each place, the token's embedding and the state
that stood before it, put together by one matrix:

    place              t - 1            t              t + 1
    token              x[t-1]          x[t]            x[t+1] = a guess
    state before       F[t-2]          F[t-1]          s[t]: the draft's own
    what comes out     s[t-1]          s[t]            s[t+1]
    the head says      q(x[t])         q(x[t+1])       q(x[t+2])

F is the target's where it has computed, s the draft's own beyond. Training goes over the text
several times with ever older states, so that the draft learns to live on its own (as HASS,
arXiv:2408.15766, and EAGLE-3, arXiv:2503.01840, do; here every place gets the draft's own state in
the later rounds). Chapter 12 drafts with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.compress import distill, student
from infero.errors import ConfigError
from infero.model import Model, random_model

FILE = student.FOLDER / "smollm2-135m-eagle.safetensors"


@dataclass(repr=False)
class Eagle:
    """The layers as a model that shares the target's embedding and head, and what feeds them."""

    model: Model
    fuse: Tensor  # [hidden, 2 * hidden]: of the embedding, then of the state before


def before(states: Tensor) -> Tensor:
    """States moved one place to the right: what stood before each token; zeros before the first.

    states: [n, length, hidden]. Returns the same shape.
    """
    return F.pad(states[:, :-1], (0, 0, 1, 0))


def states(draft: Eagle, ids: Tensor, previous: Tensor) -> Tensor:
    """The draft's states, ready for the head: [n, length, hidden].

    ids: [n, length]; previous: [n, length, hidden], the state that stood before each token, as
    `before` gives it. Both halves come to root mean square 1 before they are put together.
    """
    width, dtype = (draft.fuse.shape[0],), draft.fuse.dtype
    token = F.rms_norm(F.embedding(ids, draft.model.embedding).to(dtype), width)
    told = F.rms_norm(previous.to(dtype), width)
    both = F.linear(torch.cat((token, told), dim=-1), draft.fuse)
    return distill.through(draft.model, both.to(dtype))  # autocast: the residual stays wide


# ---------------------------------------------------------------- making and training


def create(target: Model, layers: int = 1, intermediate: int | None = None, seed: int = 0) -> Eagle:
    """An untrained draft that can be trained: random layers, float32, on the target's device."""
    config = replace(target.config, num_layers=layers, sliding_window=None, sliding_layers=None,
                     intermediate_size=intermediate or target.config.intermediate_size)
    # its own vocabulary is not used: the smallest one saves making an embedding
    fresh = random_model(replace(config, vocab_size=1), seed=seed, device=target.device)
    for layer in fresh.layers:
        layer.input_norm, layer.post_norm = (torch.ones_like(layer.input_norm) for _ in range(2))
        layer.o, layer.down = layer.o / 2, layer.down / 2
    model = distill.trainable(replace(target, config=config, layers=fresh.layers))
    half = torch.eye(config.hidden_size, device=target.device) * 0.5**0.5
    return Eagle(model, torch.cat((half, half), dim=1).requires_grad_())


def parameters(draft: Eagle) -> list[Tensor]:
    """What is trained."""
    return [*distill.parameters(draft.model), draft.fuse]


def step(draft: Eagle, target: Model, example: distill.Example, optimizer: torch.optim.Optimizer,
         recipe: distill.Recipe, rounds: int = 3) -> Tensor:
    """One training step; returns the loss of the first round, a number on the device.

    In round 1 the states before are the target's, in each further round those that the draft gave
    in the round before it. A round's gradient ends where the next begins, and counts 0.8 of it.
    """
    features = distill.features_of(target, example)
    goals = distill.picked(features.flatten(0, 1), example.positions)
    optimizer.zero_grad(set_to_none=True)
    previous, first = before(features), torch.zeros(())
    for number in range(rounds):
        with torch.autocast(previous.device.type, torch.bfloat16, previous.is_cuda):
            found = states(draft, example.ids, previous)
        mine = distill.picked(found.flatten(0, 1), example.positions)
        loss = distill.backward(draft.model, target, mine, goals, recipe, 0.8**number)
        first = loss if number == 0 else first
        previous = before(found.detach())
    torch.nn.utils.clip_grad_norm_(parameters(draft), recipe.clip)
    optimizer.step()
    return first


def fit(draft: Eagle, target: Model, examples: Iterator[distill.Example], recipe: distill.Recipe,
        *, rounds: int = 3, **limits: Any) -> tuple[int, int]:
    """As `distill.fit`, with `step` of this module."""
    def one(example: distill.Example, optimizer: torch.optim.Optimizer) -> Tensor:
        return step(draft, target, example, optimizer, recipe, rounds)

    return distill.run(one, parameters(draft), examples, recipe, **limits)


def frozen(draft: Eagle, dtype: torch.dtype) -> Eagle:
    """The trained draft in the engine's dtype, without gradients."""
    layers = [replace(layer, **{name: value.detach().to(dtype)
                                for name, value in vars(layer).items() if value is not None})
              for layer in draft.model.layers]
    model = replace(draft.model, layers=layers,
                    final_norm=draft.model.final_norm.detach().to(dtype))
    return Eagle(model, draft.fuse.detach().to(dtype))


# ---------------------------------------------------------------- the file


def save(draft: Eagle, path: Path, ids: Tensor, training: Mapping[str, Any]) -> int:
    """Write the draft as `student.save` does; returns the file's bytes."""
    return student.save(draft.model, path, ids, training, extra={"fuse": draft.fuse})


def load(target: Model, path: str | Path | None = None) -> Eagle:
    """The trained draft of this target, on its device and in its dtype."""
    place = Path(path) if path is not None else FILE
    model = student.load(target, place)
    extra = student.extra(place, "fuse", target)
    if extra.shape != (target.config.hidden_size, 2 * target.config.hidden_size):
        raise ConfigError(f"{place.name} holds a matrix of {list(extra.shape)} for the states, but "
                          f"this target needs {target.config.hidden_size} rows of twice as many.")
    return Eagle(model, extra)


# ---------------------------------------------------------------- drafting


@torch.no_grad()
def drafted(draft: Eagle, ids: Tensor, features: Tensor, starts: Tensor, count: int) -> Tensor:
    """States of `count` drafts after each start, along a text that is known.

    ids: [n, length]; features: [n, length, hidden], the target's states; starts: [n], the place of
    the newest token of each row, with at least `count` tokens behind it. Draft j (from 0) reads the
    text up to place start + j, with the target's states before places up to start and the draft's
    own from there on, as it would be in use. Returns [n, count, hidden].
    """
    rows = torch.arange(len(ids), device=ids.device)
    previous, found = before(features).clone(), list[Tensor]()
    for j in range(count):
        out = states(draft, ids, previous)[rows, starts + j]
        found.append(out)
        if j + 1 < count:
            previous[rows, starts + j + 1] = out.to(previous.dtype)
    return torch.stack(found, dim=1)



