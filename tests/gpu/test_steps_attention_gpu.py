"""The labs' attention compiled, at real sizes: the tests of tests/kernels once more on a GPU."""

from __future__ import annotations

import pytest
import torch

from infero.lab import examine, pieces
from tests.kernels.test_steps_attention import *  # noqa: F403

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]


@pytest.mark.parametrize("piece", pieces.of_lab("14"), ids=lambda p: p.attribute)
def test_the_reference_passes_its_check(piece: pieces.Piece) -> None:
    mistake = examine.reference(piece).mistake
    assert mistake is None, mistake.words
