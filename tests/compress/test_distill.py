"""Distillation: the losses, the forward pass with gradients beside the engine's, a training run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from infero import model as models
from infero.cache import contiguous
from infero.compress import distill
from infero.errors import ConfigError
from infero.kernels import formats
from infero.model import Model, random_model
from tests.conftest import tiny_config


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are too small for two



def engine_logits(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """What the engine computes for sequences ids [n, length]: [n * length, vocab]."""
    n, length = ids.shape
    cache = contiguous.allocate(model.config, n, length, model.dtype, model.device)
    return models.forward(model, ids.flatten(), contiguous.next_batch(cache, [0] * n, [length] * n),
                          cache)


def random_ids(model: Model, n: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (n, length), generator=generator)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("temperature", [1.0, 2.5, 0.5])
@pytest.mark.parametrize("tokens, vocab", [(1, 2), (7, 33)])
def test_kd_loss_is_the_divergence(temperature: float, tokens: int, vocab: int) -> None:
    s, t = 3 * torch.randn(tokens, vocab), 3 * torch.randn(tokens, vocab)
    p, q = ((x.double() / temperature).softmax(-1) for x in (t, s))
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    assert float(distill.kd_loss(s, t, temperature)) == pytest.approx(float(expected), rel=1e-4)
    assert float(distill.kd_loss(t, t, temperature)) == pytest.approx(0, abs=1e-6)


def test_kd_loss_teaches_the_student_only_and_in_float32() -> None:
    s = torch.randn(5, 9, dtype=torch.bfloat16, requires_grad=True)
    t = torch.randn(5, 9, dtype=torch.bfloat16, requires_grad=True)
    loss = distill.kd_loss(s, t, 2.0)
    assert loss.dtype == torch.float32
    loss.backward()
    assert s.grad is not None and t.grad is None


def test_temperature_keeps_the_gradients_size() -> None:
    s, t = torch.randn(64, 50, requires_grad=True), torch.randn(64, 50)
    sizes = []
    for temperature in (8.0, 16.0):
        (grad,) = torch.autograd.grad(distill.kd_loss(s, t, temperature), s)
        sizes.append(float(grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)  # both near the limit of large ones


def test_hidden_loss_knows_directions() -> None:
    x = torch.randn(6, 32)
    assert float(distill.hidden_loss(x, 5 * x)) == pytest.approx(0, abs=1e-6)
    assert float(distill.hidden_loss(x, -x)) == pytest.approx(4, rel=1e-4)


def test_overlap_is_one_minus_the_total_variation_distance() -> None:
    p, q = torch.randn(11, 40).softmax(-1), torch.randn(11, 40).softmax(-1)
    torch.testing.assert_close(distill.overlap(p, q), 1 - (p - q).abs().sum(-1) / 2)


def test_expected_length() -> None:
    assert distill.expected_length(0, 5) == 1
    assert distill.expected_length(1, 5) == 6
    assert distill.expected_length(0.5, 2) == pytest.approx(1.75)


# ---------------------------------------------------------------- the forward pass


@pytest.mark.parametrize("changes", [
    {}, dict(tie_embeddings=True), dict(qkv_bias=True, o_bias=True, mlp_bias=True),
    dict(qk_norm=True), dict(num_heads=4, num_kv_heads=4), dict(num_heads=4, num_kv_heads=1)])
def test_it_is_the_engines(changes: dict) -> None:
    model = random_model(tiny_config(**changes), seed=3)
    ids = random_ids(model, 3, 17)
    found = distill.logits(model, distill.states(model, ids).flatten(0, 1))
    torch.testing.assert_close(found, engine_logits(model, ids), rtol=1e-4, atol=1e-4)


def test_it_is_the_engines_in_bfloat16() -> None:
    model = random_model(tiny_config(), seed=3, dtype=torch.bfloat16)
    ids = random_ids(model, 2, 9)
    found = distill.logits(model, distill.states(model, ids).flatten(0, 1))
    assert F.cosine_similarity(found, engine_logits(model, ids)).min() > 0.999


def test_padding_on_the_right_changes_nothing(tiny_model: Model) -> None:
    ids = random_ids(tiny_model, 2, 12)
    longer = torch.cat((ids, torch.zeros(2, 5, dtype=torch.int64)), dim=1)
    found = distill.states(tiny_model, longer)[:, :12]
    torch.testing.assert_close(found, distill.states(tiny_model, ids), rtol=1e-4, atol=1e-5)


def test_what_it_cannot_train() -> None:
    model = random_model(tiny_config(sliding_window=8), seed=0)
    with pytest.raises(ConfigError, match=r"9 tokens.*window of 8"):
        distill.states(model, random_ids(model, 1, 9))
    model = formats.quantize_model(random_model(tiny_config(), seed=0), "int8")
    with pytest.raises(ConfigError, match="Int8Weight"):
        distill.states(model, random_ids(model, 1, 9))


# ---------------------------------------------------------------- training


def pupil(teacher: Model, layers: int = 1) -> Model:
    config = replace(teacher.config, num_layers=layers)
    return distill.trainable(replace(teacher, config=config, layers=teacher.layers[:layers]))


def test_trainable_copies_layers_and_shares_the_rest(tiny_model: Model) -> None:
    student = pupil(tiny_model)
    assert student.embedding is tiny_model.embedding and student.head is tiny_model.head
    assert student.layers[0].qkv is not tiny_model.layers[0].qkv
    assert all(p.requires_grad and p.dtype == torch.float32 for p in distill.parameters(student))
    assert len(distill.parameters(student)) == 7
    assert not tiny_model.layers[0].qkv.requires_grad


def test_a_step_in_parts_is_the_whole_step(tiny_model: Model, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    ids, found = random_ids(tiny_model, 2, 9), []
    recipe = distill.Recipe(hidden=0.5, overlap=0.3)
    for rows in (1000, 18, 5):
        monkeypatch.setattr(distill, "ROWS", rows)
        student = pupil(tiny_model)
        optimizer = torch.optim.SGD(distill.parameters(student), lr=0.1)
        loss = distill.step(student, tiny_model, ids, optimizer, recipe=recipe)
        found.append((loss, student.layers[0].qkv.detach(), student.final_norm.detach()))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_step_is_one_of_plain_autograd(tiny_model: Model) -> None:
    ids = random_ids(tiny_model, 2, 9)
    student = pupil(tiny_model)
    optimizer = torch.optim.SGD(distill.parameters(student), lr=0.0)
    loss = distill.step(student, tiny_model, ids, optimizer, 2.0,
                        recipe=distill.Recipe(temperature=2.0, clip=1e9))
    gradients = [p.grad.clone() for p in distill.parameters(student) if p.grad is not None]
    s, t = (F.linear(distill.states(m, ids).flatten(0, 1), m.head) for m in (student, tiny_model))
    expected = distill.kd_loss(s, t, 2.0)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(gradients, torch.autograd.grad(
            expected, distill.parameters(student)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


def test_only_the_places_that_count(tiny_model: Model) -> None:
    ids = random_ids(tiny_model, 2, 6)
    places = torch.tensor([1, 4, 7])
    example = distill.Example(ids, places)
    features = distill.features_of(tiny_model, example)
    assert features.shape == (2, 6, tiny_model.config.hidden_size)
    losses = []
    for one in (example, distill.Example(ids, places, features)):
        student = pupil(tiny_model)
        optimizer = torch.optim.SGD(distill.parameters(student), lr=0.0)
        losses.append(float(distill.step(student, tiny_model, one, optimizer)))
    s, t = (F.linear(distill.states(m, ids).flatten(0, 1)[places], m.head)
            for m in (student, tiny_model))
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(
        float(distill.kd_loss(s, t).detach()))


def test_a_run_learns_and_touches_nothing_else(tiny_model: Model) -> None:
    before = tiny_model.embedding.clone(), tiny_model.layers[0].down.clone()
    student, ids = pupil(tiny_model, 2), random_ids(tiny_model, 8, 16)
    told: list[tuple[int, int, float]] = []
    done, tokens = distill.fit(
        student, tiny_model, itertools.repeat(distill.Example(ids)), distill.Recipe(peak=3e-3),
        steps=30, every=10, seen=lambda *news: told.append(news))
    assert (done, tokens) == (30, 30 * ids.numel())
    assert [step for step, _, _ in told] == [10, 20, 30]
    assert told[-1][2] < 0.7 * told[0][2]
    assert torch.equal(before[0], tiny_model.embedding)
    assert torch.equal(before[1], tiny_model.layers[0].down)


def test_a_run_ends_by_the_clock(tiny_model: Model) -> None:
    example = distill.Example(random_ids(tiny_model, 1, 4))
    done, _ = distill.fit(pupil(tiny_model), tiny_model, itertools.repeat(example),
                          distill.Recipe(), seconds=0.3)
    assert done >= 1


def test_a_run_says_what_is_missing_or_wrong(tiny_model: Model) -> None:
    example = distill.Example(random_ids(tiny_model, 1, 4))
    with pytest.raises(ConfigError, match="steps, seconds or both"):
        distill.fit(pupil(tiny_model), tiny_model, itertools.repeat(example), distill.Recipe())
    with pytest.raises(ConfigError, match="no examples"):
        next(distill.shuffled([]))
    broken = pupil(tiny_model)
    broken.final_norm.data[0] = math.nan
    with pytest.raises(ConfigError, match="nan after 1 steps"):
        distill.fit(broken, tiny_model, itertools.repeat(example), distill.Recipe(), steps=1)


def test_the_rate_rises_and_falls() -> None:
    recipe = distill.Recipe(peak=2.0, warmup=0.1, floor=0.25)
    rates = [distill.rate(p / 20, recipe) for p in range(21)]
    assert rates[2] == max(rates) == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[2:]))
    assert distill.rate(0, recipe) > 0


def test_every_example_comes_once_a_round() -> None:
    examples = [distill.Example(torch.tensor([[i]])) for i in range(5)]
    turns = distill.shuffled(examples, seed=1)
    for _ in range(3):
        assert {int(next(turns).ids) for _ in range(5)} == set(range(5))


def test_the_fused_step_is_the_plain_one(tiny_model: Model, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("triton")
    from infero import kernels

    monkeypatch.setattr(distill, "ROWS", 7)
    ids, found = random_ids(tiny_model, 2, 9), []
    for kind in ("torch", "triton"):
        student = pupil(tiny_model)
        optimizer = torch.optim.SGD(distill.parameters(student), lr=0.1)
        with kernels.using(kernels=kind):
            loss = distill.step(student, tiny_model, ids, optimizer)
        found.append((loss, student.layers[0].qkv.detach(), student.final_norm.detach()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
