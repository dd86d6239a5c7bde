"""The fused distillation step on a GPU, in bfloat16 over a real vocabulary."""

from __future__ import annotations

import pytest
import torch

from infero import kernels
from infero.compress import distill, eagle, minitron
from infero.model import ModelConfig, random_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def teacher():  # type: ignore[no-untyped-def]
    config = ModelConfig("llama", 49152, 192, 512, 4, 3, 1, 64, 256, tie_embeddings=True)
    return random_model(config, dtype=torch.bfloat16, device="cuda")


def test_loss_and_gradient() -> None:
    from infero.kernels import distillation

    s, t = (4 * torch.randn(300, 49152, device="cuda").bfloat16() for _ in range(2))
    gradient = s.clone()
    found = distillation.kd(gradient, t)
    p, q = t.double().softmax(-1), s.double().softmax(-1)
    expected = (p * (p.log() - q.log())).sum(-1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient.double(), q - p, rtol=1e-2, atol=1e-6)


def test_a_fused_step_is_the_plain_one(teacher) -> None:  # type: ignore[no-untyped-def]
    ids, found = torch.randint(0, 49152, (4, 96), device="cuda"), []
    for kind in ("torch", "triton"):
        student = distill.trainable(minitron.folded(minitron.prune(teacher, [0, 3])))
        optimizer = torch.optim.SGD(distill.parameters(student), lr=1.0)
        with kernels.using(kernels=kind):
            loss = distill.step(student, teacher, ids, optimizer, recipe=distill.Recipe(clip=1e9))
        found.append((loss, student.layers[1].down.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=2e-3, atol=1e-4)
    a, b = (gradient.flatten() for _, gradient in found)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.995


def test_a_state_reader_learns(teacher) -> None:  # type: ignore[no-untyped-def]
    example = distill.Example(torch.randint(0, 49152, (4, 64), device="cuda"))
    told: list[float] = []
    eagle.fit(eagle.create(teacher, 1, 256), teacher, iter([example] * 20),
              distill.Recipe(peak=2e-3), steps=20, every=1,
              seen=lambda steps, tokens, loss: told.append(loss))
    assert told[-1] < told[0]
