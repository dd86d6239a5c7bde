"""The scheduler, case by case: budgets, admission, preemption, forks, drafts, aborts, run-ahead.

`scheduler_driver` stands in for the model and audits every step; the fuzzer throws everything at it
at once (test_scheduler_fuzz.py). Its small functions are exercises of Lab 11.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infero import scheduler as s
from infero.errors import ConfigError, ParameterError, PromptError
from infero.request import Request
from infero.scheduler import Scheduler, SchedulerConfig
from tests.scheduler_driver import STOP, Driver, Job


def driver(blocks: int = 16, size: int = 2, depth: int = 1, **config: object) -> Driver:
    fields: dict = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "watermark": 0.0}
    return Driver(SchedulerConfig(**(fields | config)), blocks, size, depth)


def shape(d: Driver) -> list[tuple[str, int, int]] | None:
    """(id, start, n) of the next plan's entries, carried out but not committed."""
    plan = d.schedule()
    return None if plan is None else [(e.request.id, e.start, e.n) for e in plan.entries]


def step(d: Driver) -> list[tuple[str, int, int]] | None:
    made = shape(d)
    if made is not None:
        d.commit()
    return made


def used(d: Driver) -> int:
    return d.num_blocks - len(d.scheduler.pool.free)


# ---------------------------------------------------------------- the budget


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 60),
       st.one_of(st.none(), st.integers(1, 20)))
def test_shares_of_a_budget(wants: list[int], budget: int, most: int | None) -> None:
    grants = s.share_budget(wants, budget, most)
    limits = [min(w, most or w) for w in wants]
    assert len(grants) == len(wants) and sum(grants) <= budget
    assert all(0 <= g <= limit for g, limit in zip(grants, limits, strict=True))
    assert sum(grants) == min(budget, sum(limits)), "tokens were wanted and left over"
    eager = [i for i, w in enumerate(wants) if w]
    assert [i for i in eager if grants[i]] == eager[:budget], "one each, in order, comes first"
    short = [i for i in eager if 0 < grants[i] < limits[i]]
    for i in short[:1]:
        assert all(grants[j] <= 1 for j in eager if j > i), "topped up out of order"


def test_decoding_requests_go_on_beside_a_long_prompt() -> None:
    d = driver(blocks=40, size=4, max_num_batched_tokens=8)
    d.arrive([0, 1, 2], 6, may_stop=False)
    assert step(d) == [("r0", 0, 3)]
    d.arrive([1] * 20, 3, may_stop=False)
    assert step(d) == [("r0", 3, 1), ("r1", 0, 7)]
    assert step(d) == [("r0", 4, 1), ("r1", 7, 7)]
    assert step(d) == [("r0", 5, 1), ("r1", 14, 6)], "its last chunk samples"
    assert step(d) == [("r0", 6, 1), ("r1", 20, 1)]
    d.drain()


def test_a_chunk_limit() -> None:
    d = driver(max_chunk=3)
    d.arrive([0] * 7, 1, may_stop=False)
    assert [step(d) for _ in range(3)] == [[("r0", 0, 3)], [("r0", 3, 3)], [("r0", 6, 1)]]
    d.drain()


def test_without_chunking_prompts_stay_whole() -> None:
    d = driver(blocks=40, chunked_prefill=False, max_num_batched_tokens=10)
    d.arrive([0] * 30, 3, may_stop=False)  # longer than the budget: it goes alone
    d.arrive([1] * 6, 3, may_stop=False)
    d.arrive([2] * 6, 3, may_stop=False)
    assert step(d) == [("r0", 0, 30)]
    assert step(d) == [("r0", 30, 1), ("r1", 0, 6)], "r2 does not fit into what is left"
    assert step(d) == [("r0", 31, 1), ("r1", 6, 1), ("r2", 0, 6)]
    d.drain()


def test_as_many_tokens_as_requests_are_needed_at_least() -> None:
    with pytest.raises(ConfigError, match="below max_num_seqs"):
        SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=7)
    d = driver(blocks=40, max_num_seqs=4, max_num_batched_tokens=4)
    for _ in range(4):
        d.arrive([0, 1], 4, may_stop=False)
    d.drain()


@pytest.mark.parametrize(("fields", "words"), [
    ({"policy": "lifo"}, "lifo"), ({"max_num_seqs": 0}, "max_num_seqs"),
    ({"max_chunk": 0}, "max_chunk"), ({"watermark": 1.0}, "watermark"),
    ({"watermark": -0.1}, "watermark"), ({"host_blocks": -1}, "host_blocks"),
    ({"ageing": -1.0}, "ageing"), ({"ageing": float("nan")}, "ageing"),
    ({"ageing": float("inf")}, "ageing"), ({"chunked_prefill": False, "max_chunk": 4}, "max_chunk"),
])  # fmt: skip
def test_configurations_that_make_no_sense(fields: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SchedulerConfig(**fields)


# ---------------------------------------------------------------- who may come in


@pytest.mark.parametrize(("prompt", "max_new", "fits"), [
    (1, 8, True), (8, 1, True), (7, 2, True), (8, 2, False), (9, 1, False), (1, 9, False),
])  # fmt: skip
def test_longer_than_the_whole_pool(prompt: int, max_new: int, fits: bool) -> None:
    """The last token is never fed back, so it needs no slot."""
    d = driver(blocks=4, size=2)
    if fits:
        d.arrive([0] * prompt, max_new, may_stop=False)
        d.drain()
    else:
        with pytest.raises(PromptError, match=r"whole KV cache holds 8 \(4 blocks of 2\)"):
            d.arrive([0] * prompt, max_new)
        assert not d.scheduler.requests and d.scheduler.schedule() is None


def test_empty_requests_are_refused() -> None:
    for tokens, max_new in (([], 4), ([1], 0), ([1], -3)):
        with pytest.raises(PromptError, match="at least 1"):
            driver().scheduler.add(Request("a", tokens, len(tokens), max_new))


def test_an_id_is_taken_until_its_request_ends() -> None:
    d = driver()
    job = d.arrive([0], 2, id="same")
    with pytest.raises(ParameterError, match="'same' is in use"):
        d.scheduler.add(Request("same", [1], 1, 1))
    d.abort(job)
    d.arrive([1], 2, id="same")
    d.drain()
    d.arrive([2], 2, id="same")
    d.drain()


def test_room_is_kept_for_those_that_run() -> None:
    d = driver(blocks=10, watermark=0.2)
    d.arrive([0] * 12, 2, may_stop=False)  # 6 blocks
    d.arrive([1] * 6, 2, may_stop=False)  # 3 more would leave 1, below the 2 of the watermark
    assert step(d) == [("r0", 0, 12)]
    assert step(d) == [("r0", 12, 1)]
    assert step(d) == [("r1", 0, 6)]
    d.drain()


def test_the_watermark_never_stalls_an_empty_engine() -> None:
    assert s.may_admit(10, 10, watermark=3, running=0)
    assert not s.may_admit(10, 10, watermark=3, running=1)
    assert s.may_admit(7, 10, watermark=3, running=1)
    assert not s.may_admit(11, 10, watermark=0, running=0)
    d = driver(blocks=4, watermark=0.9)
    d.arrive([0] * 8, 1, may_stop=False)
    assert step(d) == [("r0", 0, 8)]


def test_nobody_overtakes_a_request_that_does_not_fit_yet() -> None:
    d = driver(blocks=8)
    d.arrive([0] * 8, 4, may_stop=False)
    d.arrive([1] * 12, 2, may_stop=False)
    d.arrive([2], 2, may_stop=False)
    assert step(d) == [("r0", 0, 8)]
    assert d.scheduler.requests["r2"].status == "waiting"
    d.drain()


# ---------------------------------------------------------------- preemption


def request(key: float, admitted: int) -> Request:
    return Request(f"{key}/{admitted}", [1], 1, 1, key=key, admitted=admitted)


def test_the_victim_is_whom_the_policy_serves_last() -> None:
    running = [request(2, 1), request(5, 2), request(5, 4), request(5, 3), request(1, 9)]
    assert s.pick_victim(running, lambda r: r.key) is running[2]
    assert s.pick_victim(running, lambda r: -r.key) is running[4]
    assert s.pick_victim(running[:1], lambda r: r.key) is running[0]


def test_the_first_goes_on_and_the_last_gives_way() -> None:
    d = driver(blocks=6)
    d.arrive([0] * 4, 7, may_stop=False)
    d.now_s += 1
    second = d.arrive([1] * 4, 7, may_stop=False)
    order = []
    while d.scheduler.requests:
        plan = d.schedule()
        assert plan is not None
        order += plan.preempted
        d.commit()
    assert set(order) == {"r1"} and second.request.preemptions == len(order)
    d.drain()


def test_one_that_asks_may_be_the_victim_itself() -> None:
    d = driver(blocks=5)
    d.arrive([0] * 4, 4, may_stop=False)
    d.now_s += 1
    d.arrive([1] * 4, 4, may_stop=False)
    assert step(d) == [("r0", 0, 4), ("r1", 0, 4)]
    plan = d.schedule()  # each needs a third block and one is free: the second finds none
    assert plan is not None and plan.preempted == ["r1"]
    assert [e.request.id for e in plan.entries] == ["r0"]
    d.commit()
    d.drain()


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    d = driver(blocks=12)
    d.arrive([0] * 4, 5, may_stop=False)
    d.now_s += 1
    job = d.arrive([1] * 8, 6, may_stop=False)
    assert step(d) == [("r0", 0, 4), ("r1", 0, 8)]
    d.scheduler._preempt(job.request, s.Plan(0))
    assert job.request.computed == 0 and job.request.epoch == 1
    assert len(job.request.tokens) == 9, "what was sampled stays"
    assert step(d) == [("r0", 4, 1), ("r1", 8, 1)], "all four full blocks are still there"
    assert job.request.cached_tokens == 0 and job.request.preemptions == 1
    d.drain()


def test_preempted_while_in_flight() -> None:
    """The late result's token counts, its blocks do not."""
    d = driver(blocks=6, depth=2)
    first = d.arrive([0] * 4, 7, may_stop=False)
    d.now_s += 1
    second = d.arrive([1] * 4, 7, may_stop=False)
    for _ in range(60):
        while len(d.flight) < 2 and d.schedule() is not None:
            pass
        if d.flight:
            d.commit()
    assert d.seen["late"] >= 1 and d.seen["preempted"] >= 1
    assert first.request.status == second.request.status == "finished"
    d.drain()


# ---------------------------------------------------------------- prefixes


def test_of_a_fully_cached_prompt_one_token_is_computed() -> None:
    for length in (7, 8, 9):
        d = driver(size=4)
        for _ in range(2):
            job = d.arrive([0] * length, 2, may_stop=False)
            d.drain()
        start = (length - 1) // 4 * 4
        assert job.request.cached_tokens == start and d.seen["reused"] == start
        assert d.seen["cow"] == 0


def test_no_hit_on_a_block_that_is_being_filled() -> None:
    d = driver(depth=2, max_chunk=4)
    d.arrive([0] * 9, 1, may_stop=False)
    assert shape(d) == [("r0", 0, 4)]
    d.arrive([0] * 9, 1, may_stop=False)
    assert shape(d) == [("r0", 4, 4), ("r1", 0, 4)], "scheduled, but not committed"
    d.commit()
    d.commit()
    d.arrive([0] * 9, 1, may_stop=False)
    assert shape(d) == [("r0", 8, 1), ("r1", 4, 4), ("r2", 8, 1)]
    d.drain()


def test_duplicates_that_arrive_together() -> None:
    d = driver(blocks=40)
    for _ in range(4):
        d.arrive([0, 1] * 4, 3, may_stop=False)
    assert step(d) == [(f"r{i}", 0, 8) for i in range(4)]
    d.drain()
    assert len(d.scheduler.pool.block_of) <= 6, "of equal blocks one keeps the name"


def test_a_prefix_is_shared_by_those_who_run() -> None:
    d = driver(size=4)
    d.arrive([0] * 8, 6, may_stop=False)
    step(d)
    d.arrive([0] * 8 + [1], 3, may_stop=False)
    assert step(d) == [("r0", 8, 1), ("r1", 8, 1)] and used(d) == 4
    d.drain()


def test_other_tenants_and_other_settings_share_nothing() -> None:
    for config, salts in (({}, (b"a", b"b")), ({"prefix_caching": False}, (b"", b""))):
        d = driver(**config)
        for salt in salts:
            d.arrive([0] * 8, 2, salt=salt, may_stop=False)
            d.drain()
        assert d.seen["reused"] == 0
    d = driver()
    for _ in range(2):
        d.arrive([0] * 8, 2, salt=b"a", may_stop=False)
        d.drain()
    assert d.seen["reused"] == 6


# ---------------------------------------------------------------- n > 1


def family(d: Driver, prompt: list[int], n: int, max_new: int = 4) -> list[Job]:
    first = d.arrive(prompt, max_new, may_stop=False)
    return [first] + [d.arrive([], max_new, seed=9 + i, parent=first, may_stop=False)
                      for i in range(1, n)]


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9])
def test_samples_of_one_prompt_compute_it_once(length: int, caching: bool) -> None:
    d = driver(blocks=40, size=4, prefix_caching=caching)
    jobs = family(d, [0, 1, 2] * 3, 3) if length == 9 else family(d, ([0, 1] * 4)[:length], 3)
    assert step(d) == [("r0", 0, length)], "the others wait for it"
    assert step(d) == [("r0", length, 1), ("r1", length - 1, 1), ("r2", length - 1, 1)]
    assert d.seen["cow"] == (2 if (length - 1) % 4 else 0), "who shares a part of a block copies it"
    d.drain()
    assert jobs[1].request.cached_tokens == length - 1


@pytest.mark.parametrize("when", ["waiting", "prefill", "decode", "finished", "in flight"])
def test_a_parent_that_is_aborted(when: str) -> None:
    d = driver(blocks=40, size=4, max_chunk=4, depth=2)
    jobs = family(d, [0, 1] * 5, 3)
    if when == "in flight":
        d.schedule()
    elif when != "waiting":
        for _ in range({"prefill": 1, "decode": 3, "finished": 6}[when]):
            step(d)
    d.abort(jobs[0])
    d.drain()
    assert [j.request.finish_reason for j in jobs[1:]] == ["length"] * 2


def test_a_parent_that_is_preempted_or_done_before_its_children_come() -> None:
    d = driver(blocks=6, max_num_seqs=1)
    family(d, [0, 1] * 3, 3, max_new=3)
    d.drain()
    d = driver(blocks=8)
    first, *_ = family(d, [0, 1] * 3, 4, max_new=6)
    d.schedule()
    d.scheduler._preempt(first.request, s.Plan(0))
    d.commit()
    d.drain()


# ---------------------------------------------------------------- drafts


def test_accepted_drafts_make_several_tokens_a_step() -> None:
    d = driver(blocks=40)
    job = d.arrive([0, 1], 9, may_stop=False)
    step(d)
    d.propose({0: d.likely(0, right=3, wrong=0)})
    assert step(d) == [("r0", 2, 4)] and len(job.request.tokens) == 2 + 1 + 4
    assert job.request.computed == 6 and job.request.drafts == []
    d.propose({0: d.likely(0, right=1, wrong=2)})
    assert step(d) == [("r0", 6, 4)] and len(job.request.tokens) == 7 + 2
    assert job.request.computed == 8
    d.drain()


def test_rejected_drafts_give_their_blocks_back() -> None:
    d = driver(blocks=40, size=2)
    job = d.arrive([0, 1, 2], 12, may_stop=False)
    step(d)
    assert len(job.request.block_table) == 2
    d.propose({0: d.likely(0, right=0, wrong=6)})
    assert shape(d) == [("r0", 3, 7)] and len(job.request.block_table) == 5
    d.commit()
    assert job.request.computed == 4 and len(job.request.block_table) == 3
    d.drain()


def test_drafts_never_pass_the_last_token() -> None:
    d = driver(blocks=4, size=2)  # exactly the room that it needs
    job = d.arrive([0, 1], 7, may_stop=False)
    for _ in range(6):
        d.propose({0: d.likely(0, right=0, wrong=6)})
        if not d.scheduler.requests:
            break
        step(d)
    assert d.seen["preempted"] == 0, "drafts must not drive anybody out"
    d.drain()
    assert job.request.finish_reason == "length"


def test_the_limit_is_reached_amid_accepted_drafts() -> None:
    d = driver(blocks=40)
    job = d.arrive([0, 1], 4, may_stop=False)
    step(d)
    d.propose({0: d.likely(0, right=6, wrong=0)})
    step(d)
    assert job.request.status == "finished" and len(job.request.tokens) == 6
    d.drain()


def test_a_stop_amid_accepted_drafts_drops_the_rest() -> None:
    for seed in range(40):
        d = driver(blocks=40)
        job = d.arrive([0, 1], 8, seed=seed)
        if STOP in job.script[4:7]:
            break
    step(d)
    d.propose({0: d.likely(0, right=6, wrong=0)})
    step(d)
    assert job.request.finish_reason == "stop" and job.request.tokens[-1] == STOP
    d.drain()


def test_drafts_wait_while_a_token_is_unknown() -> None:
    """Proposed for a place that a token in flight takes: they must not follow it."""
    d = driver(blocks=40, depth=2, max_num_seqs=1, max_num_batched_tokens=2)
    job = d.arrive([0, 1, 2], 6, may_stop=False)
    assert shape(d) == [("r0", 0, 2)]
    job.request.drafts = d.likely(0, right=1, wrong=1)
    assert shape(d) == [("r0", 2, 2)]
    d.drain()
    d = driver(blocks=40, depth=2, max_num_seqs=1, max_num_batched_tokens=1)
    job = d.arrive([0], 6, may_stop=False)
    job.request.drafts = [1, 1]
    assert shape(d) == [("r0", 0, 1)] and shape(d) == [("r0", 1, 1)]
    d.drain()


# ---------------------------------------------------------------- run-ahead and abort


def test_the_next_step_is_planned_before_this_one_is_known() -> None:
    d = driver(depth=2)
    d.arrive([0, 1, 2], 3, may_stop=False)
    assert shape(d) == [("r0", 0, 3)] and shape(d) == [("r0", 3, 1)]
    d.commit()
    assert shape(d) == [("r0", 4, 1)]
    d.commit()
    assert shape(d) is None, "its third and last token is on its way"
    d.drain()


def test_steps_are_numbered() -> None:
    d = driver()
    d.arrive([0], 3, may_stop=False)
    plans = []
    while d.scheduler.requests:
        plans.append(d.schedule())
        d.commit()
    assert [p.step for p in plans if p] == [0, 1, 2] and d.schedule() is None


def test_an_abort_in_flight_frees_at_once_and_a_namesake_is_not_harmed() -> None:
    d = driver(blocks=6, depth=2)
    old = d.arrive([0] * 8, 4, id="same", may_stop=False)
    d.schedule()
    d.abort(old)
    assert used(d) == 0 and d.scheduler.abort("same") is False
    new = d.arrive([1] * 8, 4, id="same", may_stop=False)
    d.schedule()  # in the very blocks that the step in flight still writes into
    d.commit()
    assert new.request.tokens == [1] * 8
    d.drain()
    assert old.request.finish_reason == "abort" and new.request.finish_reason == "length"


def test_everybody_aborted() -> None:
    d = driver(depth=2)
    jobs = [d.arrive([i % 3] * 5, 4) for i in range(9)]
    d.schedule()
    for job in jobs:
        d.abort(job)
    assert used(d) == 0 and d.scheduler.num_waiting == 0 and d.schedule() is None
    d.commit()
    d.drain()


# ---------------------------------------------------------------- many


def test_ten_thousand_requests_queue() -> None:
    scheduler = Scheduler(SchedulerConfig(max_num_seqs=32), num_blocks=400, block_size=4)
    for i in range(10_000):
        scheduler.add(Request(f"r{i}", [i % 7, i % 5, i % 3] * 3, 9, 1 + i % 5, arrival_s=i / 9))
    assert scheduler.num_waiting == 10_000
    for i in range(0, 10_000, 10):
        assert scheduler.abort(f"r{i}")
    begin, steps = time.perf_counter(), 0
    while (plan := scheduler.schedule()) is not None:
        scheduler.commit(plan, [[1] if e.samples else [] for e in plan.entries])
        steps += 1
        if steps % 100 == 0:
            scheduler.check_integrity()
    assert not scheduler.requests and len(scheduler.pool.free) == 400
    assert 9_000 * 3 / 32 <= steps < 2_000
    assert time.perf_counter() - begin < 30, "a step's cost must not grow with the queue"


def test_a_step_does_not_walk_the_queue() -> None:
    """Of 10,000 that wait, a step looks at those it may admit, and at one more."""
    scheduler = Scheduler(SchedulerConfig(max_num_seqs=2), num_blocks=64, block_size=4)
    looked = 0

    class Watched(Request):
        def wants(self) -> int:
            nonlocal looked
            looked += 1
            return super().wants()

    for i in range(10_000):
        scheduler.add(Watched(f"r{i}", [1], 1, 4))
    for _ in range(4):
        plan = scheduler.schedule()
        assert plan is not None
        scheduler.commit(plan, [[1]] * len(plan.entries))
    assert looked <= 3 * 2
