"""Distillation: a small model learns to give the probabilities that a large one gives.

A text tells the student one right token at each position. A teacher tells it the whole
distribution, which is much more to learn from (Hinton et al., arXiv:1503.02531). Chapter 6 explains
it and Lab 6 takes one step by hand; chapter 12 uses the student as a draft, so that what counts in
the end is `overlap`: the share of its tokens that the teacher accepts (arXiv:2211.17192).

The forward pass here is the engine's over again in plain PyTorch, because the engine's kernels have
no backward pass. A test holds the two together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from infero import kernels
from infero.errors import ConfigError
from infero.kernels import torch_ops
from infero.model import Layer, Model

# cuDNN's attention, the default on some cards, prepares itself anew for every shape of batch.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
ROWS = 4096  # rows of logits held at once: 4,096 of 49,152 numbers take 0.8 GB in float32


# ---------------------------------------------------------------- losses (Lab 6)


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """How far the student's distributions lie from the teacher's, softened by a temperature.

    student_logits, teacher_logits: [tokens, vocab]. Both are divided by the temperature; the result
    is temperature ** 2 times the mean over tokens of KL(teacher || student) in nats, a float32
    number. The factor keeps the gradient's size when the temperature changes. No gradient goes to
    the teacher. Source: Hinton et al., arXiv:1503.02531.
    """
    log_p = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    log_q = (student_logits.float() / temperature).log_softmax(dim=-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # [tokens]
    return temperature**2 * divergence.mean()


def hidden_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the student's hidden states point away from the teacher's.

    student, teacher: [tokens, hidden]. Each is scaled to root mean square 1; the result is the mean
    square of their difference, from 0 (the same direction) to 4 (the opposite one).
    """
    width = (student.shape[-1],)
    s, t = F.rms_norm(student.float(), width), F.rms_norm(teacher.detach().float(), width)
    return (s - t).pow(2).mean()


def overlap(p: Tensor, q: Tensor) -> Tensor:
    """The share of tokens drawn from q that speculative decoding accepts for p: sum of min(p, q).

    p, q: [rows, vocab], probabilities. Returns [rows]. It is 1 minus their total variation distance
    (Leviathan et al., arXiv:2211.17192, section 3).
    """
    return torch.minimum(p, q).sum(dim=-1)


def expected_length(acceptance: float, draft: int) -> float:
    """Tokens that one pass of the target gives when each drafted token is accepted so often.

    The accepted drafts and one token of the target's own: 1 + a + a**2 + … + a**draft.
    """
    return float(sum(acceptance**i for i in range(draft + 1)))


# ---------------------------------------------------------------- a forward pass with gradients


def states(model: Model, ids: Tensor) -> Tensor:
    """Hidden states before the head, after the final norm: [n, length, hidden].

    ids: [n, length]; every row is a sequence of its own from position 0. A row that is padded on
    the right needs no mask: nothing looks to the right.
    """
    c, length = model.config, ids.shape[1]
    window = c.sliding_window
    if window is not None and length > window:
        raise ConfigError(f"Sequences of {length} tokens are longer than the model's window of "
                          f"{window}, which training does not mask; use shorter ones.")
    first = model.layers[0]
    if not isinstance(first.qkv, Tensor):
        raise ConfigError(f"The weights are {type(first.qkv).__name__}; gradients need plain "
                          "tensors: load the model without quantization.")
    return through(model, F.embedding(ids, model.embedding).to(first.input_norm.dtype))


def through(model: Model, x: Tensor) -> Tensor:
    """What the layers and the final norm make of x [n, length, hidden]: the same shape."""
    positions = torch.arange(x.shape[1], device=x.device)
    cos, sin = torch_ops.rotation(positions, model.inv_freq, torch.float32)  # [length, 1, dim]
    for layer in model.layers:
        x = _block(model, layer, x, cos, sin)
    return torch_ops.rms_norm(x, model.final_norm, model.config.norm_eps)


def _block(model: Model, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One layer with gradients: x [n, length, hidden] in and out."""
    c, (n, length, _) = model.config, x.shape
    heads, kv_heads, dim = c.num_heads, c.num_kv_heads, c.head_dim
    h = torch_ops.rms_norm(x, layer.input_norm, c.norm_eps)
    qkv = F.linear(h, layer.qkv, layer.qkv_bias).view(n, length, heads + 2 * kv_heads, dim)
    qk, v = qkv.split((heads + kv_heads, kv_heads), dim=2)
    if layer.q_norm is not None and layer.k_norm is not None:
        qk = torch.cat((torch_ops.rms_norm(qk[:, :, :heads], layer.q_norm, c.norm_eps),
                        torch_ops.rms_norm(qk[:, :, heads:], layer.k_norm, c.norm_eps)), dim=2)
    qk = torch_ops.rotate(qk, cos.to(qk.dtype), sin.to(qk.dtype))
    q, k = (part.transpose(1, 2) for part in qk.split((heads, kv_heads), dim=2))
    k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v.transpose(1, 2)))
    with sdpa_kernel(ATTENTION):
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
    x = x + F.linear(mixed.transpose(1, 2).reshape(n, length, -1), layer.o, layer.o_bias)
    h = torch_ops.rms_norm(x, layer.post_norm, c.norm_eps)
    gate, up = F.linear(h, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, layer.down, layer.down_bias)


def logits(model: Model, found: Tensor) -> Tensor:
    """The head's logits of states [tokens, hidden]: [tokens, vocab] float32."""
    return F.linear(found.to(model.head.dtype), model.head).float()


# ---------------------------------------------------------------- training


def trainable(model: Model) -> Model:
    """A copy whose layers and final norm are float32 and collect gradients.

    Embedding and head stay the ones they were: shared, and not trained.
    """
    def own(tensor: Tensor) -> Tensor:
        return tensor.detach().float().clone().requires_grad_()

    layers = [replace(layer, **{name: own(value) for name, value in vars(layer).items()
                                if value is not None}) for layer in model.layers]
    return replace(model, layers=layers, final_norm=own(model.final_norm))


def parameters(model: Model) -> list[Tensor]:
    """What is trained: every tensor of the layers, and the final norm."""
    return [t for layer in model.layers for t in vars(layer).values() if t is not None] + [
        model.final_norm]


@dataclass(frozen=True)
class Recipe:
    """How a student is trained. Weights of the three losses; the learning rate is a cosine."""

    peak: float = 1e-3  # learning rate
    warmup: float = 0.03  # share of the run in which the rate rises
    floor: float = 0.02  # of the peak, at the end
    decay: float = 0.01  # of the matrices
    clip: float = 1.0  # norm of the gradient
    temperature: float = 1.0
    kd: float = 1.0
    hidden: float = 0.0
    overlap: float = 0.0  # of 1 - overlap, what a draft is judged by


@dataclass(repr=False)
class Example:
    """One padded batch, the places in it that count, and the teacher's states where known."""

    ids: Tensor  # [n, length]
    positions: Tensor | None = None  # [counted] int64, of the flattened ids; None: all
    features: Tensor | None = None  # [n, length, hidden]


def optimizer_for(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over all that a student trains; norms do not decay."""
    return _adam(parameters(model), recipe)


def _adam(found: Sequence[Tensor], recipe: Recipe) -> torch.optim.AdamW:
    groups = [dict(params=[p for p in found if p.dim() > 1], weight_decay=recipe.decay),
              dict(params=[p for p in found if p.dim() == 1], weight_decay=0.0)]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.peak, betas=(0.9, 0.95),
                             fused=found[0].is_cuda)


def features_of(teacher: Model, example: Example) -> Tensor:
    """The teacher's states at every place: [n, length, hidden]."""
    if example.features is not None:
        return example.features
    with torch.no_grad():
        return states(teacher, example.ids)


def picked(found: Tensor, positions: Tensor | None) -> Tensor:
    """The rows that count, of found [places, hidden]."""
    return found if positions is None else found.index_select(0, positions)


def step(student: Model, teacher: Model, ids: Tensor | Example, optimizer: torch.optim.Optimizer,
         temperature: float = 1.0, *, recipe: Recipe | None = None) -> Tensor:
    """One training step on sequences ids [n, length]; returns the loss, a number on the device.

    student: made by `trainable`. recipe: further losses; by default only `kd_loss`, at the given
    temperature.
    """
    recipe = recipe or Recipe(temperature=temperature)
    example = Example(ids) if isinstance(ids, Tensor) else ids
    goals = picked(features_of(teacher, example).flatten(0, 1), example.positions)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(student.device.type, torch.bfloat16, student.device.type == "cuda"):
        found = picked(states(student, example.ids).flatten(0, 1), example.positions)
    loss = backward(student, teacher, found, goals, recipe)
    torch.nn.utils.clip_grad_norm_(parameters(student), recipe.clip)
    optimizer.step()
    return loss


def backward(student: Model, teacher: Model, found: Tensor, goals: Tensor, recipe: Recipe,
             weight: float = 1.0) -> Tensor:
    """The loss of the student's states beside the teacher's, and its gradient times `weight`.

    found, goals: [places, hidden]. The head is the largest matrix of a small model, and its logits
    take more memory than all else: they are made and forgotten some rows at a time.
    """
    if _fused(found, recipe):
        return _fused_backward(student, teacher, found, goals, weight)
    cut = found.detach().requires_grad_()  # the graph is cut here: its gradient is gathered first
    total = torch.zeros((), device=found.device)
    for mine, goal in zip(cut.split(ROWS), goals.split(ROWS), strict=True):
        loss = _loss(student, teacher, mine, goal, recipe) * (len(mine) / len(cut))
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    found.backward(cut.grad)
    return total


def _fused(found: Tensor, recipe: Recipe) -> bool:
    """Whether a kernel does it: on a GPU, `kd_loss` alone at temperature 1, and not a learner's."""
    plain = recipe.temperature == recipe.kd == 1 and not (recipe.hidden or recipe.overlap)
    mine = globals()
    return plain and kernels.triton(found.device) and mine["kd_loss"].__globals__ is mine


def _fused_backward(student: Model, teacher: Model, found: Tensor, goals: Tensor,
                    weight: float) -> Tensor:
    """As `backward`, for `kd_loss` at temperature 1, without a graph over the logits."""
    from infero.kernels import distillation

    gradients, losses = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for mine, goal in zip(found.split(ROWS), goals.split(ROWS), strict=True):
            s, t = (F.linear(part.to(m.head.dtype), m.head)
                    for m, part in ((student, mine), (teacher, goal)))
            losses.append(distillation.kd(s, t))  # s now holds the gradient of the logits
            gradients.append((s @ student.head).to(found.dtype))
        gradient = torch.cat(gradients) * (weight / len(found))
    found.backward(gradient)
    return torch.cat(losses).mean()


def _loss(student: Model, teacher: Model, mine: Tensor, goal: Tensor, recipe: Recipe) -> Tensor:
    s = logits(student, mine)
    with torch.no_grad():
        t = logits(teacher, goal)
    loss = torch.zeros((), device=mine.device)
    if recipe.kd:
        loss = loss + recipe.kd * kd_loss(s, t, recipe.temperature)
    if recipe.hidden:
        loss = loss + recipe.hidden * hidden_loss(mine, goal)
    if recipe.overlap:
        loss = loss + recipe.overlap * (1 - overlap(t.softmax(-1), s.softmax(-1)).mean())
    return loss


def rate(progress: float, recipe: Recipe) -> float:
    """The learning rate after a share of the run: up in a line, down along a cosine."""
    if progress < recipe.warmup:
        return recipe.peak * max(progress / recipe.warmup, 1e-3)
    done = min(1.0, (progress - recipe.warmup) / (1 - recipe.warmup))
    return recipe.peak * (recipe.floor + (1 - recipe.floor) * (1 + math.cos(math.pi * done)) / 2)


def shuffled(examples: Sequence[Example], seed: int = 0) -> Iterator[Example]:
    """All examples in a random order, again and again."""
    if not examples:
        raise ConfigError("There are no examples to learn from; generate some text first.")
    generator = torch.Generator().manual_seed(seed)
    while True:
        for i in torch.randperm(len(examples), generator=generator).tolist():
            yield examples[i]


def fit(student: Model, teacher: Model, examples: Iterator[Example], recipe: Recipe, *,
        steps: int | None = None, seconds: float | None = None, every: int = 20,
        seen: Callable[[int, int, float], Any] | None = None) -> tuple[int, int]:
    """Train until `steps` or `seconds` are over, whichever is first: (steps, tokens) done.

    seen(steps, tokens, mean loss since the last call) is called every `every` steps; that is also
    where the host waits for the device, so that the clock is right. If a loss is not finite,
    training ends with an error: what it made is of no use.
    """
    def one(example: Example, optimizer: torch.optim.Optimizer) -> Tensor:
        return step(student, teacher, example, optimizer, recipe=recipe)

    return run(one, parameters(student), examples, recipe, steps=steps, seconds=seconds,
               every=every, seen=seen)


def run(one: Callable[[Example, torch.optim.Optimizer], Tensor], trained: Sequence[Tensor],
        examples: Iterator[Example], recipe: Recipe, *, steps: int | None = None,
        seconds: float | None = None, every: int = 20,
        seen: Callable[[int, int, float], Any] | None = None) -> tuple[int, int]:
    """The loop of `fit` around any step: one(example, optimizer) gives its loss."""
    if steps is None and seconds is None:
        raise ConfigError("fit needs an end: give steps, seconds or both.")
    optimizer, start_s = _adam(trained, recipe), time.perf_counter()
    done, tokens, losses = 0, 0, list[Tensor]()
    while True:
        passed_s = time.perf_counter() - start_s
        progress = max(done / steps if steps else 0.0, passed_s / seconds if seconds else 0.0)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(progress, recipe)
        example = next(examples)
        losses.append(one(example, optimizer))
        tokens += example.ids.numel() if example.positions is None else len(example.positions)
        done += 1
        if done % every == 0:
            _tell(losses, done, tokens, seen)
    if losses:
        _tell(losses, done, tokens, seen)
    return done, tokens


def _tell(losses: list[Tensor], done: int, tokens: int,
          seen: Callable[[int, int, float], Any] | None) -> None:
    mean = float(torch.stack(losses).mean())
    losses.clear()
    if not math.isfinite(mean):
        raise ConfigError(f"The loss is {mean} after {done} steps; train with a smaller learning "
                          "rate or look for NaN in the weights.")
    if seen is not None:
        seen(done, tokens, mean)
