"""Who goes next: the keys of the three policies, and that ageing starves nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infero import policies
from infero.request import Request
from infero.scheduler import SchedulerConfig
from tests.scheduler_driver import Driver


def request(prompt: int = 4, max_new: int = 8, arrival_s: float = 0.0, **fields: object) -> Request:
    made = Request("r", [1] * prompt, prompt, max_new, arrival_s)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_first_come() -> None:
    assert policies.first_come(request(arrival_s=3.5)) == 3.5


@pytest.mark.parametrize(("fields", "want"), [
    ({}, 4 + 8),
    ({"expected_tokens": 3}, 4 + 3),
    ({"computed": 3}, 1 + 8),
    ({"tokens": [1] * 9, "computed": 8}, 1 + 3),  # five of eight were generated
    ({"tokens": [1] * 9, "computed": 0}, 9 + 3),  # preempted: all is to be computed again
    ({"tokens": [1] * 9, "computed": 8, "expected_tokens": 2}, 1 + 1),  # longer than expected
])  # fmt: skip
def test_work_that_is_left(fields: dict, want: int) -> None:
    assert policies.shortest_first(request(**fields), 0.0) == want
    assert policies.shortest_first(request(arrival_s=2.0, **fields), 5.0) == want + 10


def test_priority() -> None:
    assert policies.priority_first(request(priority=2, arrival_s=7.0), 0.0) == 2
    assert policies.priority_first(request(priority=2, arrival_s=7.0), 0.5) == 5.5


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 100), st.floats(0, 100),
       st.floats(0.01, 10), st.floats(0, 1000))
def test_ageing_at_one_rate_never_changes_an_order(
    a: int, b: int, a_s: float, b_s: float, rate: float, now_s: float
) -> None:
    """The key leaves `now` out; with it, the order is the same at any moment."""
    first, second = request(a, arrival_s=a_s), request(b, arrival_s=b_s)
    keys = [policies.shortest_first(r, rate) for r in (first, second)]
    aged = [policies.shortest_first(r, 0.0) - rate * (now_s - r.arrival_s) for r in (first, second)]
    if abs(keys[0] - keys[1]) > 1e-6:
        assert (keys[0] < keys[1]) == (aged[0] < aged[1])


# ---------------------------------------------------------------- in the scheduler


def order(config: SchedulerConfig, jobs: list[dict]) -> list[str]:
    """Ids in the order of admission, one at a time, all having arrived before the first step."""
    driver = Driver(config, 40, 4)
    for job in jobs:
        driver.now_s = job.pop("at", 0.0)
        driver.arrive(job.pop("prompt"), job.pop("max_new", 1), may_stop=False, **job)
    seen: list[str] = []
    while driver.scheduler.requests:
        plan = driver.schedule()
        assert plan is not None
        seen += plan.admitted
        driver.commit()
    return seen


ONE = {"max_num_seqs": 1, "max_num_batched_tokens": 64}


def test_fcfs_is_by_arrival() -> None:
    config = SchedulerConfig(**ONE)
    jobs = [{"prompt": [0] * 9, "at": 2.0}, {"prompt": [1], "at": 3.0}, {"prompt": [2], "at": 1.0}]
    assert order(config, jobs) == ["r2", "r0", "r1"]


def test_ties_go_by_arrival() -> None:
    for policy in ("fcfs", "sjf", "priority"):
        jobs = [{"prompt": [0, 1]} for _ in range(6)]
        assert order(SchedulerConfig(policy=policy, **ONE), jobs) == [f"r{i}" for i in range(6)]


def test_sjf_is_by_work() -> None:
    jobs = [{"prompt": [0] * 9, "max_new": 4}, {"prompt": [1] * 3, "max_new": 12},
            {"prompt": [2] * 8, "max_new": 12, "expected": 1}, {"prompt": [1] * 2, "max_new": 3}]
    assert order(SchedulerConfig(policy="sjf", **ONE), jobs) == ["r3", "r2", "r0", "r1"]


def test_priority_is_by_urgency() -> None:
    jobs = [{"prompt": [0], "priority": 2}, {"prompt": [0], "priority": 0},
            {"prompt": [0], "priority": 1}, {"prompt": [0], "priority": 0}]
    assert order(SchedulerConfig(policy="priority", **ONE), jobs) == ["r1", "r3", "r2", "r0"]


@pytest.mark.parametrize("policy", ["sjf", "priority"])
@pytest.mark.parametrize("ageing", [0.0, 1.0])
def test_ageing_ends_starvation(policy: str, ageing: float) -> None:
    """A stream of favoured requests, one a step, each of which fills the only place for a step."""
    driver = Driver(SchedulerConfig(policy=policy, ageing=ageing, **ONE), 40, 4)
    poor = driver.arrive([0] * 30, 1, priority=9, may_stop=False)
    for _ in range(120):
        driver.arrive([1], 1, priority=0, may_stop=False)
        driver.schedule()
        driver.commit()
    assert (poor.request.status == "finished") == (ageing > 0)
    if ageing:
        waited_s = poor.request.scheduled_s or 0.0
        assert waited_s <= (31 if policy == "sjf" else 10) + 3
    driver.drain()


def test_a_starved_request_is_served_under_each_default() -> None:
    for policy in ("fcfs", "sjf", "priority"):
        driver = Driver(SchedulerConfig(policy=policy, **ONE), 40, 4)
        poor = driver.arrive([0] * 30, 2, priority=5, may_stop=False)
        for _ in range(100):
            driver.arrive([1], 1, priority=0, may_stop=False)
            driver.schedule()
            driver.commit()
        assert poor.request.status == "finished"
        driver.drain()
