"""RMSNorm, SiLU·mul and the gather of embeddings, interpreted, against float64."""

from __future__ import annotations

import pytest
import torch

from infero import model as m
from infero.errors import ParameterError
from infero.kernels import activations, embeddings, norms
from tests.kernels import oracles
from tests.kernels.oracles import close, poisoned, randn

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d)[6:])
SHAPES = [(1, 1), (3, 7), (2, 16), (5, 64), (1, 576), (9, 33), (2, 3, 80), (0, 8), (2, 1030)]


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, w = randn(1, *shape, dtype=dtype) * 5 + 1, randn(2, shape[-1], dtype=dtype)
    out = poisoned(*shape, dtype=dtype)
    assert norms.rms_norm(x, w, 1e-5, out=out) is out
    close(out, oracles.rms_norm(x, w, 1e-5))
    assert torch.equal(out, norms.rms_norm(x, w, 1e-5))


@DTYPES
def test_rms_norm_of_views(dtype: torch.dtype) -> None:
    wide = randn(3, 6, 5, 20, dtype=dtype)
    w = randn(4, 20, dtype=dtype)
    for x in (wide[:, :2], wide[:, 3:], wide[::2], wide.transpose(0, 1)):
        close(norms.rms_norm(x, w, 1e-6), oracles.rms_norm(x, w, 1e-6))
    columns = randn(5, 20, 8, dtype=dtype).t()  # elements of a row are not side by side
    close(norms.rms_norm(columns, w, 1e-6), oracles.rms_norm(columns, w, 1e-6))
    rows = randn(6, 8, 40, dtype=dtype)[:, 10:30]
    close(norms.rms_norm(rows, w, 1e-6), oracles.rms_norm(rows, w, 1e-6))


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, residual = randn(1, *shape, dtype=dtype), randn(2, *shape, dtype=dtype) * 3
    w, total = randn(3, shape[-1], dtype=dtype), x + residual
    out = poisoned(*shape, dtype=dtype)
    normed, after = norms.add_rms_norm(x, residual, w, 1e-5, out=out)
    assert normed is out and after is residual
    assert torch.equal(residual, total)  # rounded once, like an addition of its own
    close(normed, oracles.rms_norm(total, w, 1e-5))


def test_zeros_stay_zero_and_giants_stay_finite() -> None:
    zeros = norms.rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-5)
    assert not zeros.any()
    x = torch.full((1, 576), 0.01)
    x[0, 3] = 3000.0
    close(norms.rms_norm(x, torch.ones(576), 1e-5), oracles.rms_norm(x, torch.ones(576), 1e-5))
    half = torch.full((1, 64), 6e4, dtype=torch.float16)  # its square does not fit float16
    close(norms.rms_norm(half, torch.ones_like(half[0]), 1e-5), torch.ones(1, 64))


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    x, w = randn(7, 9, 100), randn(8, 100)
    together = norms.rms_norm(x, w, 1e-5)
    for i in range(9):
        assert torch.equal(norms.rms_norm(x[i : i + 1], w, 1e-5)[0], together[i])


def test_what_the_norm_refuses() -> None:
    with pytest.raises(ParameterError, match="65537"):
        norms.rms_norm(torch.zeros(1, 65537), torch.zeros(65537), 1e-5)
    x = torch.zeros(4, 8)
    with pytest.raises(ParameterError, match="contiguous"):
        norms.add_rms_norm(x, torch.zeros(8, 4).t(), torch.ones(8), 1e-5)


# ---------------------------------------------------------------- activation


@DTYPES
@pytest.mark.parametrize("tokens,inter", [(1, 1), (3, 7), (2, 80), (5, 33), (0, 4), (1, 2100)])
def test_silu_mul(tokens: int, inter: int, dtype: torch.dtype) -> None:
    both = randn(1, tokens, 2 * inter, dtype=dtype) * 4
    before = both.clone()
    gate, up = both.chunk(2, -1)
    out = poisoned(tokens, inter, dtype=dtype)
    assert activations.silu_mul(both, out=out) is out
    close(out, oracles.swiglu(gate, up), 2)
    assert torch.equal(both, before)
    assert torch.equal(activations.swiglu(gate, up), out)
    assert torch.equal(activations.swiglu(gate.contiguous(), up.contiguous()), out)


def test_silu_of_large_numbers() -> None:
    gate = torch.tensor([[-1e4, -200.0, -90.0, 0.0, 90.0, 1e4]])
    got = activations.swiglu(gate, torch.ones(1, 6))
    torch.testing.assert_close(got, m.swiglu(gate, torch.ones(1, 6)))


def test_swiglu_of_other_layouts() -> None:
    gate, up = randn(1, 2, 3, 10), randn(2, 2, 3, 10)
    close(activations.swiglu(gate, up), oracles.swiglu(gate, up), 2)
    gate, up = randn(3, 10, 4).t(), randn(4, 4, 10)
    close(activations.swiglu(gate, up), oracles.swiglu(gate, up), 2)


# ---------------------------------------------------------------- embeddings


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("tokens,vocab,hidden", [(1, 1, 1), (5, 30, 48), (3, 9, 1500), (0, 4, 8)])
def test_gather(tokens: int, vocab: int, hidden: int, kind: torch.dtype) -> None:
    weight = randn(1, vocab, hidden, dtype=torch.float16)
    ids = torch.randint(0, vocab, (tokens,), generator=torch.Generator().manual_seed(2))
    out = poisoned(tokens, hidden, dtype=torch.float16)
    embeddings.gather(ids.to(kind), weight, out=out)
    assert torch.equal(out, weight[ids])


def test_tokens_that_the_host_has_not_seen() -> None:
    weight = randn(1, 50, 20)
    ids = torch.tensor([4, 0, 7, 0], dtype=torch.int32)
    source = torch.tensor([-1, 2, -1, 0], dtype=torch.int32)
    previous = torch.tensor([31, 12, 49], dtype=torch.int64)
    got = embeddings.gather(ids, weight, source, previous)
    assert torch.equal(got, weight[torch.tensor([4, 49, 7, 31])])


def test_an_id_outside_the_vocabulary_reads_nothing() -> None:
    got = embeddings.gather(torch.tensor([-1, 50, 2**40, 3]), randn(1, 50, 20))
    assert not got[:3].any() and got[3].any()
