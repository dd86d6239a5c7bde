"""The fused distillation loss beside PyTorch's, in float64, with tails and one row."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from infero.compress import distill
from infero.kernels import distillation


@pytest.mark.parametrize("tokens, vocab", [(1, 7), (3, 4096), (5, 4097), (2, 9000), (0, 5)])
def test_loss_and_gradient(tokens: int, vocab: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    s, t = (4 * torch.randn(tokens, vocab, generator=generator) for _ in range(2))
    t[:, : vocab // 3] -= 60  # probabilities of nothing
    gradient = s.clone()
    found = distillation.kd(gradient, t)
    wide = s.double().requires_grad_()
    p, log_q = t.double().softmax(-1), wide.log_softmax(-1)
    expected = (p * (t.double().log_softmax(-1) - log_q)).sum(-1)
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-4, atol=1e-5)
    expected.sum().backward()
    assert wide.grad is not None
    torch.testing.assert_close(gradient.double(), wide.grad, rtol=1e-4, atol=1e-6)


def test_the_mean_is_the_plain_loss() -> None:
    s, t = torch.randn(4, 50), torch.randn(4, 50)
    torch.testing.assert_close(distillation.kd(s.clone(), t).mean(), distill.kd_loss(s, t))


def test_rows_may_lie_apart() -> None:
    wide = torch.randn(3, 40)
    s, t = wide.clone()[:, :30], torch.randn(3, 50)[:, :30]
    expected = distill.kd_loss(s, t)
    torch.testing.assert_close(distillation.kd(s, t).mean(), expected)
