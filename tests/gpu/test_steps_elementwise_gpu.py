"""Lab 13's kernels and their CUDA C++ twins on a GPU, at real sizes, against float64."""

from __future__ import annotations

import pytest
import torch

from infero import model
from infero.kernels import cuda
from infero.kernels.steps import elementwise
from tests.kernels import oracles
from tests.kernels.oracles import close

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])


@DTYPES
@pytest.mark.parametrize("shape", [(37, 4096), (5, 14_336), (3, 4095)], ids=str)
def test_rms_norm(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = (torch.randn(shape, device="cuda") * 3 + 1).to(dtype)
    w = torch.randn(shape[1], device="cuda").to(dtype)
    want = model.rms_norm(x.double(), w.double(), 1e-5)
    ways = [elementwise.rms_norm]
    if not cuda.missing():
        ways += [cuda.rms_norm, lambda *a: cuda.rms_norm(*a, plain=True)]
    for way in ways:
        got = way(x, w, 1e-5)
        close(got, want, units=2)
        assert torch.equal(got, way(x, w, 1e-5))


def test_the_others() -> None:
    both = torch.randn(9, 2 * 5000, device="cuda").bfloat16()
    gate, up = both.chunk(2, dim=-1)
    close(elementwise.swiglu(gate, up), model.swiglu(gate.double(), up.double()))
    x = torch.randn(7, 50_257, device="cuda") * 20
    close(elementwise.softmax(x), x.double().softmax(-1), units=10)
    qk = torch.randn(33, 42, 128, device="cuda").bfloat16()[:, :40]
    positions = torch.randint(0, 100_000, (33,), device="cuda")
    inv_freq = 500_000.0 ** (-torch.arange(64, device="cuda") / 64)
    want = oracles.rope(qk, positions, inv_freq)
    for rotate in (elementwise.rope, elementwise.rope_by_token):
        close(rotate(qk, positions, inv_freq), want, units=2)
