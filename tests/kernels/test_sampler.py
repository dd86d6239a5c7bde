"""Draws on the device, interpreted: the same tokens as `infero.sampling`, and the same bits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from infero import sampling
from infero.errors import ParameterError
from infero.kernels import sampler
from infero.kernels.language import tl, triton
from infero.sampling import SamplingRows
from tests.kernels.oracles import randn


def rows_for(n: int, seed: int = 0, device: str = "cpu", **fields: object) -> SamplingRows:
    """n rows of parameters; a field may be one value, a list that is repeated, or a tensor."""
    generator = torch.Generator().manual_seed(seed)

    def column(name: str, default: object, dtype: torch.dtype) -> Tensor:
        value = fields.get(name, default)
        values = value if isinstance(value, list) else [value]
        return torch.tensor([values[i % len(values)] for i in range(n)], dtype=dtype, device=device)

    seeds = torch.randint(0, 2**62, (n,), generator=generator).tolist()
    positions = torch.randint(0, 100_000, (n,), generator=generator).tolist()
    return SamplingRows(
        column("temperature", 1.0, torch.float32), column("top_k", 0, torch.int64),
        column("top_p", 1.0, torch.float32), column("min_p", 0.0, torch.float32),
        column("seeds", seeds, torch.int64), column("positions", positions, torch.int64))


def check(logits: Tensor, rows: SamplingRows, variant: str) -> None:
    """The kernel draws what `sampling.sample` draws; a near-tie is allowed to fall otherwise."""
    out = torch.full((len(logits),), -(10**9), device=logits.device)
    got = sampler.sample(logits, rows, variant, out=out)
    assert got is out
    want = sampling.sample(logits, rows)
    for r in (got != want).nonzero()[:, 0].tolist():
        assert near_tie(logits, rows, r, int(got[r]), int(want[r])), (
            f"row {r} drew {int(got[r])}, expected {int(want[r])}")
    assert torch.equal(sampler.sample(logits, rows, variant), got)


def near_tie(logits: Tensor, rows: SamplingRows, r: int, got: int, want: int) -> bool:
    """Whether noise or mass of two tokens differ by float32's rounding only, in float64."""
    one = SamplingRows(*(getattr(rows, name)[r : r + 1] for name in vars(rows)))
    x = sampling.temperature(logits[r : r + 1].float(), one.temperature)
    noise = sampling.gumbel(one.seed, one.position, sampling.SAMPLE, logits.shape[1])
    noisy = (x + noise)[0]
    if abs(float(noisy[got] - noisy[want])) < 2e-5:
        return True
    probs = x.double().softmax(-1)[0]
    order = probs.sort(descending=True, stable=True)
    before = order.values.cumsum(0) - order.values
    rank = int((order.indices == want).nonzero()), int((order.indices == got).nonzero())
    edges = [abs(float(before[i]) - float(one.top_p)) for i in rank]
    return float(one.top_k) == 0 and float(one.top_p) < 1 and min(edges) < 2e-6


VOCABS = [1, 3, 64, 65, 211, 2053]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("vocab", VOCABS)
def test_greedy(vocab: int, dtype: torch.dtype) -> None:
    logits = randn(vocab, 3, vocab, dtype=dtype) * 3
    check(logits, rows_for(3, temperature=0.0), "greedy")
    ties = torch.zeros(2, vocab, dtype=dtype)
    ties[1, vocab // 2 :] = 1  # the first of the largest
    check(ties, rows_for(2, temperature=0.0), "greedy")


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("seed", range(3))
def test_plain(vocab: int, seed: int) -> None:
    logits = randn(seed, 5, vocab) * 3
    check(logits, rows_for(5, seed, temperature=[1.0, 0.6, 0.0, 2.5, 0.01]), "plain")


def test_many_rows_take_another_path_to_the_same_tokens() -> None:
    """With many rows a row is drawn by one program, with few by several."""
    logits = randn(1, 4, 5003) * 2
    rows = rows_for(4, temperature=[0.8, 0.0])
    few = sampler.sample(logits, rows, "plain")
    before, sampler.FILL = sampler.FILL, 1
    try:
        assert torch.equal(sampler.sample(logits, rows, "plain"), few)
    finally:
        sampler.FILL = before


FILTERS = [
    {"top_k": 1}, {"top_k": 5}, {"top_k": [40, 7, 0]}, {"top_k": 10**6}, {"top_k": 190},
    {"top_p": 0.9}, {"top_p": [0.3, 0.99, 1.0]}, {"top_p": 1e-6}, {"min_p": 0.1},
    {"min_p": [0.5, 1.0, 0.0]}, {"top_k": 20, "top_p": 0.8}, {"top_k": 50, "min_p": 0.05},
    {"top_p": 0.95, "min_p": 0.02}, {"top_k": 30, "top_p": 0.7, "min_p": 0.1}, {},
    {"temperature": [0.0, 0.3, 4.0], "top_k": 12, "top_p": 0.9},
]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
def test_filtered(fields: dict) -> None:
    for seed, (vocab, spread) in enumerate([(1030, 1.5), (130, 0.3)]):
        check(randn(seed, 3, vocab) * spread, rows_for(3, seed, **fields), "filtered")


@pytest.mark.parametrize("fields", FILTERS, ids=str)
def test_filters_with_many_equal_logits(fields: dict) -> None:
    """Steps of 0.5: ties at the k-th largest are all kept, ties at the nucleus's edge by index."""
    logits = (randn(1, 4, 333) * 4).round() / 2
    p = {"top_p": [0.3172, 0.7391]} if "top_p" in fields else {}  # not at a tie's very edge
    check(logits, rows_for(4, 1, **(fields | p)), "filtered")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=lambda d: str(d)[6:])
def test_masked_and_peaked_rows(dtype: torch.dtype) -> None:
    logits = randn(1, 6, 300, dtype=dtype)
    logits[0] = -torch.inf
    logits[0, 77] = 1.0  # one token is allowed
    logits[1, 200:] = -torch.inf
    logits[2, 5] = 500.0
    logits[3] = 0.0
    logits[4, :299] = -torch.inf
    rows = rows_for(6, 3, top_k=[0, 3], top_p=[0.9, 1.0, 0.5], min_p=[0.0, 0.1])
    check(logits, rows, "filtered")
    check(logits, replace(rows, top_k=rows.top_k * 0, top_p=rows.top_p * 0 + 1,
                          min_p=rows.min_p * 0), "plain")


@pytest.mark.parametrize("variant", sampler.VARIANTS)
def test_broken_logits_end_with_some_token(variant: str) -> None:
    """All forbidden, NaN, infinite: an answer within the vocabulary, and in finite time."""
    logits = randn(1, 5, 130)
    logits[0], logits[1] = -torch.inf, torch.nan
    logits[2, 3] = torch.nan
    logits[3, 8], logits[4, 9:] = torch.inf, torch.inf
    rows = rows_for(5, temperature=[1.0, 0.0, 0.7], top_p=[0.5, 0.9], top_k=[0, 5])
    got = sampler.sample(logits, rows, variant)
    assert bool(((got >= 0) & (got < 130)).all())
    assert int(got[0]) == 0 and int(got[3]) == 8


def test_parameters_of_any_integer_type_and_unset_padding() -> None:
    logits = randn(4, 3, 211)
    rows = rows_for(3, top_k=5, top_p=0.8)
    want = sampler.sample(logits, rows, "filtered")
    narrow = replace(rows, top_k=rows.top_k.int(), position=rows.position.int())
    assert torch.equal(sampler.sample(logits, narrow, "filtered"), want)
    zeros = SamplingRows(*(torch.zeros(3) for _ in range(4)), *(torch.zeros(3).long(),) * 2)
    for variant in sampler.VARIANTS:
        assert torch.equal(sampler.sample(logits, zeros, variant), logits.argmax(-1))
    nothing = replace(zeros, temperature=torch.ones(3))  # top_p 0: only the best is left
    assert torch.equal(sampler.sample(logits, nothing, "filtered"), logits.argmax(-1))


def test_rows_apart_and_no_rows() -> None:
    wide = randn(4, 5, 300)
    rows = rows_for(5, top_k=5)
    assert torch.equal(sampler.sample(wide[:, :211], rows, "filtered"),
                       sampler.sample(wide[:, :211].contiguous(), rows, "filtered"))
    assert torch.equal(sampler.sample(wide.t().contiguous().t(), rows, "plain"),
                       sampler.sample(wide, rows, "plain"))
    assert sampler.sample(wide[:0], rows_for(0), "filtered").shape == (0,)


def test_a_row_draws_the_same_alone() -> None:
    logits, rows = randn(9, 6, 1030) * 2, rows_for(6, 1, top_k=[0, 9], top_p=[0.9, 1.0, 0.6])
    for variant in sampler.VARIANTS:
        together = sampler.sample(logits, rows, variant)
        for r in range(6):
            alone = SamplingRows(*(getattr(rows, name)[r : r + 1] for name in vars(rows)))
            assert int(sampler.sample(logits[r : r + 1], alone, variant)) == int(together[r])


def test_an_unknown_variant() -> None:
    with pytest.raises(ParameterError, match="beam"):
        sampler.sample(torch.zeros(1, 4), rows_for(1), "beam")


# ---------------------------------------------------------------- the noise itself


@triton.jit
def _uniforms(seeds, positions, words, noise, n, BLOCK: tl.constexpr):
    """What `_noise` draws from: Philox words of one row, and the noise itself."""
    row, block = tl.program_id(0), tl.arange(0, BLOCK)[None, :]
    seed, position = tl.load(seeds + row), tl.load(positions + row)
    i = tl.arange(0, 4 * BLOCK)[None, :]
    tl.store(noise + row * n + i, sampler._noise(seed, position, block), mask=i < n)
    c0 = block.to(tl.int32)
    w0, w1, w2, w3 = tl.philox(seed, c0, c0 * 0 + position.to(tl.int32), c0 * 0, c0 * 0)
    for j in tl.static_range(4):
        word = w0 if j == 0 else (w1 if j == 1 else (w2 if j == 2 else w3))
        tl.store(words + row * n + 4 * block + j, word.to(tl.int64), mask=4 * block + j < n)


def noise_and_words(device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    seeds = torch.tensor([0, 7, 2**40 + 1, 2**62 + 12345], device=device)
    positions = torch.tensor([0, 5, 123_456, 2**31 - 1], device=device)
    words = torch.full((4, 4099), -1, device=device)
    noise = torch.full((4, 4099), torch.nan, device=device)
    _uniforms[(4,)](seeds, positions, words, noise, 4099, BLOCK=2048)
    return seeds, positions, words, noise


def test_the_bits_and_the_noise_are_those_of_sampling() -> None:
    seeds, positions, words, noise = noise_and_words("cpu")
    zero = torch.zeros(1, 1, dtype=torch.int64)
    counter = (torch.arange(1025)[None, :], positions[:, None], zero, zero)
    key = (seeds[:, None] & 0xFFFFFFFF, (seeds[:, None] >> 32) & 0xFFFFFFFF)
    want = torch.stack(torch.broadcast_tensors(*sampling.philox(counter, key)), -1).flatten(1)
    assert torch.equal(words & 0xFFFFFFFF, want[:, :4099])
    torch.testing.assert_close(
        noise, sampling.gumbel(seeds, positions, sampling.SAMPLE, 4099), atol=2e-6, rtol=2e-6)
    assert float(noise.max()) < 23


@triton.jit
def _of_words(words, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, sampler._gumbel(tl.load(words + i).to(tl.uint32)))


def test_noise_of_extreme_words() -> None:
    words = torch.tensor([0, 1, 2, 2**16 - 1, 2**16, 2**24 + 1, 2**25 - 1, 2**31, 2**31 - 1,
                          2**32 - 1, 2**32 - 2, 2**32 - 129, 2**32 - 255, 3, 5, 2**23])
    out = torch.empty(16)
    _of_words[(1,)](words, out, BLOCK=16)
    u = ((words.double() + 0.5) * 2.0**-32).float().clamp(max=1 - 2.0**-24)
    want = -torch.log(-torch.log1p(-u.double()))
    torch.testing.assert_close(out.double(), want, atol=3e-6, rtol=3e-6)
    assert math.isclose(float(out.max()), 33 * math.log(2), rel_tol=1e-6)
