"""The draft that reads the target's states: what it sees, its training, its file, its drafting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infero.compress import distill, eagle, student
from infero.errors import ConfigError
from infero.model import Model, random_model
from tests.conftest import tiny_config


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are too small for two


@pytest.fixture
def target() -> Model:
    model = random_model(tiny_config(tie_embeddings=True), seed=5)
    model.name = "tiny"
    return model


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 211, (6, 20), generator=torch.Generator().manual_seed(0))


def test_before_moves_one_place() -> None:
    states = torch.randn(2, 4, 3)
    moved = eagle.before(states)
    assert torch.equal(moved[:, 1:], states[:, :-1]) and not moved[:, 0].any()


def test_a_place_sees_nothing_that_comes_later(target: Model, ids: torch.Tensor) -> None:
    draft = eagle.create(target, 1, 32)
    features = distill.states(target, ids)
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 211
    one = eagle.states(draft, ids, eagle.before(features))
    other = eagle.states(draft, changed, eagle.before(distill.states(target, changed)))
    torch.testing.assert_close(one[:, :9], other[:, :9])
    assert not torch.allclose(one[:, 9], other[:, 9])


def test_it_learns_and_states_help(target: Model, ids: torch.Tensor) -> None:
    example = distill.Example(ids)
    told: list[float] = []
    draft = eagle.create(target, 1, 32)
    eagle.fit(draft, target, iter([example] * 30), distill.Recipe(peak=5e-3), steps=30, every=1,
              seen=lambda steps, tokens, loss: told.append(loss))
    assert told[-1] < 0.7 * told[0]
    assert all(p.grad is not None for p in eagle.parameters(draft))
    assert target.embedding.grad is None


def test_rounds_use_the_drafts_own_states(target: Model, ids: torch.Tensor) -> None:
    gradients = []
    for rounds in (1, 2):
        draft = eagle.create(target, 1, 32)
        optimizer = torch.optim.SGD(eagle.parameters(draft), lr=0.0)
        loss = eagle.step(draft, target, distill.Example(ids), optimizer,
                          distill.Recipe(clip=1e9), rounds)
        assert draft.fuse.grad is not None
        gradients.append((loss, draft.fuse.grad))
    assert gradients[0][0] == gradients[1][0]  # the loss told is the first round's
    assert not torch.allclose(gradients[0][1], gradients[1][1])


def test_it_comes_back_from_its_file(target: Model, ids: torch.Tensor, tmp_path: Path) -> None:
    draft, path = eagle.create(target, 2, 32), tmp_path / "e.safetensors"
    size = eagle.save(draft, path, torch.arange(211), dict(steps=0))
    assert size == path.stat().st_size
    found = eagle.load(target, path)
    assert found.model.head is target.head and len(found.model.layers) == 2
    previous = eagle.before(distill.states(target, ids))
    a, b = (eagle.states(d, ids, previous) for d in (draft, found))
    assert torch.nn.functional.cosine_similarity(a, b, dim=-1).min() > 0.995
    student.save(draft.model, path, torch.arange(211), {})
    with pytest.raises(ConfigError, match="plain student"):
        eagle.load(target, path)


def test_drafting_is_what_a_step_by_step_draft_does(target: Model, ids: torch.Tensor) -> None:
    draft = eagle.frozen(eagle.create(target, 1, 32), torch.float32)
    features = distill.states(target, ids)
    starts = torch.tensor([3, 5, 7, 2, 9, 11])
    found = eagle.drafted(draft, ids, features, starts, 4)
    for row, start in enumerate(starts.tolist()):
        known = features[row : row + 1, :start]  # the target has computed this much
        for j in range(4):
            seen = ids[row : row + 1, : start + j + 1]
            padded = torch.cat((known, torch.zeros_like(known[:, :1])), dim=1)
            out = eagle.states(draft, seen, eagle.before(padded))[:, -1:]
            torch.testing.assert_close(found[row, j], out[0, 0], rtol=1e-4, atol=1e-5)
            known = torch.cat((known, out), dim=1)
