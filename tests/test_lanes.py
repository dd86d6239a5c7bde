"""Host and device lanes: the arithmetic of launches and of planning ahead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infero import lanes
from infero.errors import ParameterError

times = st.lists(st.floats(0.1, 20), min_size=1, max_size=30)


@given(times, st.floats(0, 20))
def test_a_step_ends_when_the_slower_lane_does(kernels: list[float], launch: float) -> None:
    ends = lanes.device_ends(kernels, launch)
    assert ends == sorted(ends)
    assert ends[-1] >= max(len(kernels) * launch, sum(kernels)) - 1e-9
    assert ends[-1] <= len(kernels) * launch + sum(kernels) + 1e-9


def test_two_cases_of_equal_kernels() -> None:
    assert lanes.device_ends([2.0] * 8, 4.0)[-1] == 8 * 4 + 2
    assert lanes.device_ends([6.0] * 8, 4.0)[-1] == 4 + 8 * 6
    assert lanes.device_ends([], 4.0) == []


@given(times, st.floats(0.1, 20))
def test_ahead_is_never_slower_and_never_twice_as_fast(runs: list[float], plan: float) -> None:
    plans = [plan] * len(runs)
    ahead, turn = lanes.overlapped(plans, runs), lanes.in_turn(plans, runs)
    assert all(a <= b + 1e-9 for a, b in zip(ahead, turn, strict=True))
    assert turn[-1] <= 2 * ahead[-1] + 1e-9
    assert ahead[-1] >= plan + sum(runs) - 1e-9 or ahead[-1] >= plan * len(runs)


def test_the_steady_state_is_the_larger() -> None:
    for plan, run in ((2.0, 5.0), (5.0, 2.0), (3.0, 3.0)):
        ends = lanes.overlapped([plan] * 40, [run] * 40)
        assert ends[30] - ends[29] == pytest.approx(max(plan, run), rel=0.3)
        assert (ends[39] - ends[19]) / 20 == pytest.approx(max(plan, run))


def test_a_prediction_names_the_bound() -> None:
    costs = lanes.Costs(launch_s=5e-6, graph_s=1e-5, gap_s=1e-6)
    small, large = lanes.predict(170, 4e-4, costs), lanes.predict(170, 5e-3, costs)
    assert small.launch_bound and not large.launch_bound
    assert small.eager_s == pytest.approx(170 * 5e-6 + 4e-4 / 170)
    assert small.graph_s == pytest.approx(1e-5 + 4e-4 + 170e-6)
    assert lanes.most_launches(4e-4, 5e-6) == 80
    with pytest.raises(ParameterError, match="launches is 0"):
        lanes.predict(0, 1.0, costs)
