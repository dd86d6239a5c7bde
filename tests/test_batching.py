"""Static, dynamic and continuous batching, counted: against running every pass, and by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infero import batching
from infero.errors import ParameterError

LENGTHS = st.lists(st.integers(1, 30), max_size=40)
SLOTS = st.integers(1, 9)


def passes_one_by_one(lengths: list[int], slots: int, refill: bool) -> int:
    """The same counts, found by running every pass."""
    waiting, running, passes = list(lengths), [], 0
    while waiting or running:
        if refill or not running:
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        passes += 1
    return passes


@given(LENGTHS, SLOTS)
def test_counts_equal_running_every_pass(lengths, slots):
    assert batching.static_steps(lengths, slots) == passes_one_by_one(lengths, slots, False)
    assert batching.continuous_steps(lengths, slots) == passes_one_by_one(lengths, slots, True)


@given(LENGTHS, SLOTS)
def test_traces_agree_with_the_counts(lengths, slots):
    static = batching.simulate("static", lengths, slots)
    continuous = batching.simulate("continuous", lengths, slots)
    assert static.makespan == batching.static_steps(lengths, slots)
    assert continuous.makespan == batching.continuous_steps(lengths, slots)
    assert continuous.makespan <= static.makespan
    assert sum(continuous.active()) == sum(static.active()) == sum(lengths)


@given(LENGTHS, SLOTS, st.integers(0, 12), st.integers(0, 2**32))
def test_every_trace_is_a_legal_schedule(lengths, slots, window, seed):
    arrivals = [(seed * (i + 7) ** 3) % 50 for i in range(len(lengths))]
    for policy in batching.POLICIES:
        trace = batching.simulate(policy, lengths, slots, arrivals, window)
        assert [s.request for s in trace.services] == list(range(len(lengths)))
        assert all(n <= slots for n in trace.held())
        for s in trace.services:
            assert s.arrival <= s.start and s.end - s.start == lengths[s.request]
            assert s.end <= s.released <= trace.makespan
        taken = [(s.slot, step) for s in trace.services for step in range(s.start, s.released)]
        assert len(taken) == len(set(taken)), "two requests in one slot"
        assert 0 <= trace.utilisation <= 1


def test_the_worked_example_of_chapter_10():
    lengths = [4, 9, 2, 7, 3, 8, 5, 2]
    assert batching.static_steps(lengths, 4) == 9 + 8
    assert batching.continuous_steps(lengths, 4) == 12
    static = batching.simulate("static", lengths, 4)
    assert static.active() == [4, 4, 3, 3, 2, 2, 2, 1, 1, 4, 4, 3, 2, 2, 1, 1, 1]
    assert static.utilisation == 40 / (4 * 17)


def test_a_window_trades_waiting_for_larger_batches():
    lengths, arrivals = [3] * 6, [0, 1, 2, 10, 11, 12]
    by_window = {w: batching.simulate("dynamic", lengths, 4, arrivals, w) for w in (0, 2, 20)}
    assert [s.start for s in by_window[0].services] == [0, 3, 3, 10, 13, 13]
    assert [s.start for s in by_window[2].services] == [2, 2, 2, 12, 12, 12]
    static = batching.simulate("static", lengths, 4, arrivals)
    assert [s.start for s in by_window[20].services] == [s.start for s in static.services]


@pytest.mark.parametrize(("arguments", "word"), [
    (("lazy", [1], 1), "policy"), (("static", [1], 0), "slots"), (("static", [0], 1), "length"),
    (("static", [1, 2], 1, [0]), "arrivals"), (("dynamic", [1], 1, [0], -1), "window"),
])
def test_refuses_what_makes_no_sense(arguments, word):
    with pytest.raises(ParameterError, match=word):
        batching.simulate(*arguments)


def test_geometric_lengths_and_their_longest() -> None:
    lengths = batching.geometric_lengths(40_000, 32, 256, seed=1)
    assert min(lengths) == 1 and max(lengths) <= 256
    assert sum(lengths) / len(lengths) == pytest.approx(32, rel=0.02)
    for slots in (1, 4, 16):
        longest = batching.static_steps(lengths, slots) / (len(lengths) / slots)
        assert batching.expected_longest(32, 256, slots) == pytest.approx(longest, rel=0.03)
    assert batching.geometric_lengths(3, 1, 9, seed=0) == [1, 1, 1]
