"""Sampling: known answers for Philox, float64 oracles and peers for filters, and statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infero import sampling as s
from infero.errors import ParameterError


def logits_like(seed: int, rows: int, vocab: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


# ------------------------------------------------ Philox


@pytest.mark.parametrize("counter,key,want", [  # Random123's published known answers
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
])
def test_philox_known_answers(counter: tuple, key: tuple, want: tuple) -> None:
    words = s.philox(tuple(torch.tensor(c) for c in counter), tuple(torch.tensor(k) for k in key))
    assert tuple(int(w) for w in words) == want


def test_uniform_depends_on_nothing_but_its_own_counter() -> None:
    seeds, positions = torch.tensor([3, 2**40 + 3, 3]), torch.tensor([5, 5, 6])
    batch = s.uniform(seeds, positions, s.SAMPLE, 10)
    alone = s.uniform(seeds[1:2], positions[1:2], s.SAMPLE, 7)
    assert torch.equal(batch[1:2, :7], alone)
    assert len({tuple(row.tolist()) for row in batch}) == 3
    assert not torch.equal(s.uniform(seeds, positions, s.ACCEPT, 10), batch)


def test_uniform_is_uniform() -> None:
    u = s.uniform(torch.arange(64), torch.arange(64), s.SAMPLE, 4096).flatten().double()
    assert float(u.min()) > 0 and float(u.max()) < 1
    n = u.numel()
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * n)
    counts = torch.histc(u, 64, 0, 1)
    chi2 = float(((counts - n / 64) ** 2 / (n / 64)).sum())
    assert 20 < chi2 < 130  # 63 degrees of freedom


def test_sampled_frequencies_follow_softmax() -> None:
    """Chi-square of 20,000 draws against the exact distribution (df 9, p = 0.001: 27.9)."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -2.0, 0.2, 0.7])
    n = 20_000
    params = s.SamplingParams(temperature=0.8)
    rows = s.rows_of([params] * n, [11] * n, range(n))
    counts = torch.bincount(s.sample(logits.expand(n, -1), rows), minlength=10).double()
    want = (logits.double() / 0.8).softmax(0) * n
    assert float(((counts - want) ** 2 / want).sum()) < 27.9


# ------------------------------------------------ filters


@pytest.mark.parametrize("seed", range(3))
def test_top_k_keeps_the_k_largest(seed: int) -> None:
    logits = logits_like(seed, 5, 37)
    k = torch.tensor([0, 1, 5, 37, 100])
    got = s.top_k(logits, k)
    for row, wanted in enumerate([37, 1, 5, 37, 37]):
        kept = torch.isfinite(got[row])
        assert int(kept.sum()) == wanted
        assert torch.equal(got[row][kept], logits[row][kept])
        if wanted < 37:
            assert logits[row][kept].min() > logits[row][~kept].max()


def test_top_k_keeps_ties_at_the_kth_value() -> None:
    got = s.top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]]), torch.tensor([2]))
    assert torch.isfinite(got[0]).tolist() == [False, True, True, True, False]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.01, 1.0))
def test_top_p_is_the_smallest_set_that_reaches_p(seed: int, vocab: int, p: float) -> None:
    logits = logits_like(seed, 1, vocab)
    kept = torch.isfinite(s.top_p(logits, torch.tensor([p]))[0]).numpy()
    probs = logits[0].double().softmax(0).numpy()
    order = np.argsort(-probs)
    need = int(np.searchsorted(np.cumsum(probs[order]), p - 1e-6)) + 1
    assert kept.sum() in (min(need, vocab), min(need + 1, vocab))  # rounding at the edge
    assert set(order[: kept.sum()]) == set(np.flatnonzero(kept))


def test_filters_agree_with_transformers() -> None:
    t = pytest.importorskip("transformers")
    logits = logits_like(4, 3, 501)
    ids = torch.zeros(3, 1, dtype=torch.long)
    for peer, ours in [
        (t.TopKLogitsWarper(17), s.top_k(logits, torch.full((3,), 17))),
        (t.TopPLogitsWarper(0.83), s.top_p(logits, torch.full((3,), 0.83))),
        (t.MinPLogitsWarper(0.07), s.min_p(logits, torch.full((3,), 0.07))),
        (t.TemperatureLogitsWarper(0.7), s.temperature(logits, torch.full((3,), 0.7))),
    ]:
        torch.testing.assert_close(ours, peer(ids, logits))


def test_repetition_penalty_agrees_with_transformers() -> None:
    t = pytest.importorskip("transformers")
    logits, prompt = logits_like(5, 1, 50), [3, 4, 4, 9]
    mask = torch.zeros(1, 50, dtype=torch.bool)
    mask[0, prompt] = True
    one, zero = torch.tensor([1.3]), torch.zeros(1)
    ours = s.penalties(logits, torch.zeros(1, 50), mask, one, zero, zero)
    peer = t.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([prompt]), logits)
    torch.testing.assert_close(ours, peer)


def test_presence_and_frequency_count_generated_tokens_only() -> None:
    counts = torch.tensor([[0.0, 1.0, 3.0]])
    prompt = torch.tensor([[True, False, False]])
    got = s.penalties(torch.zeros(1, 3), counts, prompt, torch.ones(1), torch.tensor([0.5]),
                      torch.tensor([0.1]))
    torch.testing.assert_close(got, torch.tensor([[0.0, -0.6, -0.8]]))


@pytest.mark.parametrize("field,p", [("top_p", 1e-6), ("top_k", 1), ("min_p", 1.0)])
def test_the_tightest_filters_are_greedy(field: str, p: float) -> None:
    logits = logits_like(6, 8, 99)
    rows = s.rows_of([s.SamplingParams(**{field: p})] * 8, range(8), range(8))
    assert torch.equal(s.sample(logits, rows), logits.argmax(-1))


def test_a_batch_may_mix_greedy_and_sampled_rows() -> None:
    logits = logits_like(7, 4, 300, spread=0.5)
    params = [s.SamplingParams(temperature=t, top_k=k) for t, k in
              [(0, 0), (1.0, 0), (0, 3), (1.5, 20)]]
    together = s.sample(logits, s.rows_of(params, [1, 2, 3, 4], [9, 9, 9, 9]))
    alone = [int(s.sample(logits[i : i + 1], s.rows_of([params[i]], [i + 1], [9]))[0])
             for i in range(4)]
    assert together.tolist() == alone
    assert together[0] == logits[0].argmax() and together[2] == logits[2].argmax()


def test_log_probabilities() -> None:
    logits = logits_like(8, 2, 12)
    logp, ids, values = s.log_probabilities(logits, torch.tensor([3, 7]), 2)
    want = logits.double().log_softmax(-1)
    assert float(logp[1]) == pytest.approx(float(want[1, 7]), abs=1e-5)
    assert ids[0].tolist() == want[0].argsort(descending=True)[:2].tolist()
    assert values.shape == (2, 2)


# ------------------------------------------------ parameters


@pytest.mark.parametrize("bad", [
    {"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0},
    {"top_p": 1.01}, {"top_p": float("nan")}, {"min_p": 2.0}, {"repetition_penalty": 0.0},
    {"presence_penalty": 3.0}, {"frequency_penalty": -2.5}, {"max_tokens": 0},
    {"min_tokens": 200}, {"n": 0}, {"logprobs": 21}, {"seed": -1}, {"stop": ["a", ""]},
    {"logit_bias": {3: float("inf")}}, {"logit_bias": {-3: 1.0}},
])
def test_bad_parameters_are_named(bad: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(bad))):
        s.SamplingParams(**bad)


def test_one_stop_string_needs_no_list() -> None:
    assert s.SamplingParams(stop="END").stop == ("END",)


# ------------------------------------------------ token masks


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 64, 71, 257])
def test_token_mask_keeps_exactly_the_tokens_whose_bit_is_set(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    words = -(-vocab // 32)
    mask = torch.from_numpy(rng.integers(-2**31, 2**31, (5, words)).astype(np.int32))
    mask[0], mask[1] = -1, 0  # everything, nothing
    logits = logits_like(vocab, 5, vocab)
    before = logits.clone()
    out = s.token_mask(logits, mask)
    for row in range(5):
        for token in range(vocab):
            allowed = int(mask[row, token // 32]) & 0xFFFFFFFF & (1 << (token % 32))
            assert float(out[row, token]) == (float(logits[row, token]) if allowed else -math.inf)
    assert torch.equal(logits, before) and out.dtype == logits.dtype


def test_token_mask_leaves_the_distribution_of_the_rest() -> None:
    logits = logits_like(3, 1, 40).to(torch.bfloat16)
    mask = torch.tensor([[0b1011, 1]], dtype=torch.int32)
    probs = s.token_mask(logits, mask).float().softmax(-1)[0]
    allowed = torch.tensor([0, 1, 3, 32])
    want = logits[0, allowed].float().softmax(-1)
    assert torch.allclose(probs[allowed], want) and float(probs.sum()) == pytest.approx(1)
