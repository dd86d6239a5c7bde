"""The host one step ahead of the device: a step is launched before the one before it is read.

Everything here runs on a CPU with `overlap=True`, where the device draws the tokens and the engine
learns them a step later, exactly as on a GPU. The contract is that nobody notices, except that a
chunk comes one call of `step` later.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from infero import graphs
from infero.engine import Engine, EngineConfig
from infero.errors import ConfigError, ParameterError
from infero.model import Model
from infero.runner import Flight, Runner
from infero.sampling import SamplingParams
from infero.scheduler import Scheduler
from tests.engine_tools import GREEDY, alone, check_empty, check_same, drive, prompts
from tests.test_invariants import (
    ENGINES,
    FAILURES,
    SAMPLED,
    engine_of,
    jobs,
    model_of,
    rewritten,
    wanted,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model() -> Model:
    return model_of("llama", "cpu")


def ahead(model: Model, **fields: Any) -> Engine:
    return engine_of(model, overlap=True, **fields)


# ---------------------------------------------------------------- the same tokens


@pytest.mark.parametrize(("architecture", "how"), [
    ("llama", how) for how in ENGINES] + [("window", "tiny pool, swap"), ("qk_norm", "default")])
def test_greedy_tokens_are_those_of_the_request_alone(architecture: str, how: str) -> None:
    model = model_of(architecture, "cpu")
    engine = ahead(model, **ENGINES[how])
    for i, (prompt, params) in enumerate(jobs()):
        engine.add_request(f"r{i}", prompt, params, priority=i % 3)
    run = drive(engine)
    for i, one in enumerate(wanted(architecture, "cpu")):
        check_same(run.tokens[f"r{i}", 0], one, f"r{i}")
        assert run.reasons[f"r{i}", 0] == "length"
    if "pool" in how:
        assert engine.stats.preemptions > 0


@pytest.mark.parametrize("how", ["default", "chunks of 3", "tiny pool, recompute",
                                 "tiny pool, swap", "priorities"])
def test_sampled_tokens_depend_on_nobody_else(how: str, model: Model) -> None:
    engine = ahead(model, **ENGINES[how])
    cases = [(p, SAMPLED[i % 4]) for i, p in enumerate(prompts(16, seed=2))]
    for i, (prompt, params) in enumerate(cases):
        engine.add_request(f"r{i}", prompt, params, priority=-i)
    run = drive(engine)
    for i, (prompt, params) in enumerate(cases):
        check_same(run.tokens[f"r{i}", 0], alone(model, prompt, params), f"r{i}")


KINDS: list[dict[str, Any]] = [  # what a request may ask for, beside its neighbours
    {"temperature": 0}, {"temperature": 0.8}, {"temperature": 1.1, "top_p": 0.8, "top_k": 30},
    {"temperature": 0, "allowed_token_ids": [3, 5, 8, 13, 21]}, {"temperature": 0, "logprobs": 3},
    {"temperature": 0.9, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
    {"temperature": 0, "logit_bias": {7: 3.0}}, {"temperature": 0, "min_tokens": 4},
    {"temperature": 0.7, "min_p": 0.1},
]


@pytest.mark.parametrize("fields", [{}, {"num_blocks": 24, "watermark": 0.0}, {"max_num_seqs": 3}],
                         ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_request_beside_every_other(fields: dict, seed: int, model: Model) -> None:
    """Some are drawn by the device, others need the host to choose; they come, stop and go."""
    rng, engine = random.Random(seed), ahead(model, **fields)
    cases = {}
    for i, prompt in enumerate(prompts(18, seed=seed + 10, longest=30)):
        kind = dict(KINDS[i % len(KINDS)])
        stop = alone(model, prompt, SamplingParams(**kind, seed=i, max_tokens=9)).tokens
        ends = [stop[rng.randrange(len(stop))]] if stop and rng.random() < 0.5 else []
        cases[f"r{i}"] = prompt, SamplingParams(**kind, seed=i, max_tokens=rng.randint(4, 12),
                                                stop_token_ids=ends)
    left = list(cases)

    def arrive(step: int) -> None:
        while left and (rng.random() < 0.5 or not engine.has_unfinished()):
            engine.add_request(left[-1], *cases[left.pop()])

    engine.add_request("first", [1, 2], GREEDY)
    run = drive(engine, before=arrive)
    while left:
        run_more = drive_after(engine, arrive)
        run.tokens.update(run_more.tokens)
    for id, (prompt, params) in cases.items():
        check_same(run.tokens[id, 0], alone(model, prompt, params), f"{id} {params}")


def drive_after(engine: Engine, arrive: Callable[[int], None]) -> Any:
    arrive(0)
    return drive(engine, before=arrive)


# ---------------------------------------------------------------- it really runs ahead


def events_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on: "launch N" and "read N" as they happen, N a step's number."""
    events: list[str] = []
    execute, read = engine.runner.execute, Flight.read

    def launch(plan: Any, *rest: Any, **named: Any) -> Flight:
        events.append(f"launch {plan.step}")
        return execute(plan, *rest, **named)

    def wait(flight: Flight) -> list[int]:
        events.append(f"read {flight.plan.step}")
        return read(flight)

    monkeypatch.setattr(engine.runner, "execute", launch)
    monkeypatch.setattr(Flight, "read", wait)
    return events


def test_a_step_is_launched_before_the_one_before_it_is_read(
        model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ahead(model)
    events = events_of(engine, monkeypatch)
    engine.add_request("a", [1, 2, 3], SamplingParams(temperature=0, max_tokens=4))
    counts = []
    while engine.has_unfinished():
        counts.append(len(engine.step()))
    assert events == ["launch 0", "launch 1", "read 0", "launch 2", "read 1", "launch 3", "read 2",
                      "read 3"]
    assert counts == [0, 1, 1, 1, 1]  # the first token comes with the second call


def test_with_overlap_off_every_step_is_read_at_once(model: Model) -> None:
    engine = engine_of(model, overlap=False)
    engine.add_request("a", [1, 2, 3], SamplingParams(temperature=0, max_tokens=4))
    assert [len(engine.step()) for _ in range(4)] == [1, 1, 1, 1]
    assert not engine.has_unfinished()


@pytest.mark.parametrize("fields", [{"logprobs": 1}, {"allowed_token_ids": [3, 4]},
                                    {"logit_bias": {3: 1.0}}, {"presence_penalty": 0.5}], ids=str)
def test_what_the_host_must_choose_is_read_before_the_next_launch(
        fields: dict, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step depends on it: nothing may run ahead of it, also not a plain neighbour."""
    engine = ahead(model)
    flights: list[bool] = []
    execute = engine.runner.execute

    def launch(plan: Any, states: Any, *, choose: bool) -> Flight:
        pending = [e for e in plan.entries if e.start + e.n > len(e.request.tokens)]
        flights.append(bool(pending))
        return execute(plan, states, choose=choose)

    monkeypatch.setattr(engine.runner, "execute", launch)
    engine.add_request("a", [1, 2, 3], SamplingParams(temperature=0, max_tokens=5, **fields))
    engine.add_request("b", [4, 5], SamplingParams(temperature=0, max_tokens=5))
    drive(engine)
    assert not any(flights)


# ---------------------------------------------------------------- ends that come late


def test_a_stop_token_while_a_step_runs_ahead(model: Model) -> None:
    """What the step after the end computed is dropped, and nobody finds it as a prefix."""
    prompt = list(range(20))
    free = alone(model, prompt, SamplingParams(temperature=0, max_tokens=12)).tokens
    for at in range(len(free)):
        if free.index(free[at]) != at:
            continue  # it would have stopped earlier
        engine = ahead(model)
        params = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[free[at]])
        engine.add_request("a", prompt, params)
        engine.add_request("b", prompt[:7], GREEDY)
        run = drive(engine)
        check_same(run.tokens["a", 0], alone(model, prompt, params))
        assert run.reasons["a", 0] == "stop"
        engine.add_request("again", prompt + free[:at] + [free[at], 1, 2, 3, 4, 5], GREEDY)
        run = drive(engine)
        check_same(run.tokens["again", 0],
                   alone(model, prompt + free[:at] + [free[at], 1, 2, 3, 4, 5]))


def test_stop_strings_and_a_neighbour(request: pytest.FixtureRequest) -> None:
    smollm2: Model = request.getfixturevalue("smollm2")
    prompt = smollm2.tokenizer.encode("One, two, three, four,")
    got = {}
    for overlap in (False, True):
        engine = engine_of(smollm2, overlap=overlap, num_blocks=64)
        engine.add_request("a", prompt, SamplingParams(temperature=0, max_tokens=16,
                                                       stop=("seven",)))
        engine.add_request("b", prompt, SamplingParams(temperature=0, max_tokens=10))
        run = drive(engine)
        text = {id: "".join(c.text for c in run.chunks if c.id == id) for id in "ab"}
        got[overlap] = text, run.reasons, run.tokens
    assert got[True] == got[False]
    assert got[True][1]["a", 0] == "stop" and "seven" not in got[True][0]["a"]


@pytest.mark.parametrize("when", ["before", "launched", "read"])
@pytest.mark.parametrize("moment", range(7))
def test_an_abort_at_any_moment(moment: int, when: str, model: Model,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps, behind a launch, behind a read: the neighbour gets its own tokens."""
    engine = ahead(model, num_blocks=20)
    for id, prompt in (("left", [7] * 9), ("mine", list(range(11))), ("right", list(range(11)))):
        engine.add_request(id, prompt, GREEDY)
    seen = [0]

    def strike() -> None:
        if seen[0] == moment:
            engine.abort("left")
            engine.abort("right")
        seen[0] += 1

    execute, read = engine.runner.execute, Flight.read
    if when == "launched":
        def launch(*rest: Any, **named: Any) -> Flight:
            flight = execute(*rest, **named)
            strike()
            return flight

        monkeypatch.setattr(engine.runner, "execute", launch)
    if when == "read":
        def wait(flight: Flight) -> list[int]:
            tokens = read(flight)
            strike()
            return tokens

        monkeypatch.setattr(Flight, "read", wait)
    run = drive(engine, before=lambda _: when == "before" and strike())
    check_same(run.tokens["mine", 0], alone(model, list(range(11))))
    assert seen[0] > moment and ("left", 0) not in run.reasons


def test_a_name_is_used_again_while_its_last_step_is_on_the_way(model: Model) -> None:
    engine = ahead(model)
    engine.add_request("a", [9] * 6, GREEDY)
    for _ in range(3):
        engine.step()
    engine.abort("a")
    assert not engine.has_unfinished()
    engine.add_request("a", [1, 2, 3], GREEDY)
    run = drive(engine)
    check_same(run.tokens["a", 0], alone(model, [1, 2, 3]))
    for step in range(5):  # and again, in the midst of others
        engine.add_request("b", [4, 5], GREEDY)
        engine.add_request("a", [9] * 6, GREEDY)
        for _ in range(step):
            engine.step()
        engine.abort("a")
        engine.add_request("a", [1, 2, 3], GREEDY)
        run = drive(engine)
        check_same(run.tokens["a", 0], alone(model, [1, 2, 3]))


def test_a_step_that_fails_takes_the_one_on_its_way_with_it(
        model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for failing in range(4):
        engine = ahead(model)
        execute = engine.runner.execute

        def launch(plan: Any, *rest: Any, at: int = failing, run: Any = execute, **named: Any
                   ) -> Flight:
            if plan.step == at:
                raise RuntimeError("planted")
            return run(plan, *rest, **named)

        engine.runner.execute = launch  # type: ignore[method-assign]
        engine.add_request("a", [1, 2, 3], GREEDY)
        with pytest.raises(RuntimeError, match="planted"):
            drive(engine)
        check_empty(engine)
        engine.runner.execute = execute  # type: ignore[method-assign]
        engine.add_request("a", [1, 2, 3, 4], GREEDY)
        check_same(drive(engine).tokens["a", 0], alone(model, [1, 2, 3, 4]))


# ---------------------------------------------------------------- sizes and limits


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_short_outputs(max_tokens: int, model: Model) -> None:
    engine = ahead(model)
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    cases = {f"r{n}": list(range(n)) for n in (1, 2, 4, 5, 16, 17)}
    for id, prompt in cases.items():
        engine.add_request(id, prompt, params)
    run = drive(engine)
    for id, prompt in cases.items():
        check_same(run.tokens[id, 0], alone(model, prompt, params))
        assert len(run.tokens[id, 0]) == max_tokens


def test_a_request_that_fills_the_cache_to_its_last_slot(model: Model) -> None:
    """The step that runs ahead of the end must not want a block more than there are."""
    engine = ahead(model, num_blocks=4, watermark=0.0)
    engine.add_request("a", [1] * 10, SamplingParams(temperature=0, max_tokens=100))
    run = drive(engine)
    check_same(run.tokens["a", 0], alone(model, [1] * 10, SamplingParams(
        temperature=0, max_tokens=16 - 10)))


@pytest.mark.parametrize("fields", [{"max_num_seqs": 32}, {"max_num_seqs": 2}, {"max_chunk": 5},
                                    {"num_blocks": 17, "watermark": 0.0}, {"block_size": 1},
                                    {"num_blocks": 17, "host_blocks": 32}], ids=str)
def test_several_samples_of_one_prompt(fields: dict, model: Model) -> None:
    engine = ahead(model, **fields)
    for length in (1, 4, 5, 16, 33):
        engine.add_request(f"p{length}", list(range(length)), SamplingParams(
            temperature=0.9, seed=length, n=4, max_tokens=9))
    run = drive(engine)
    for length in (1, 4, 5, 16, 33):
        for i in range(4):
            one = SamplingParams(temperature=0.9, seed=length + i, max_tokens=9)
            check_same(run.tokens[f"p{length}", i], alone(model, list(range(length)), one))


@pytest.mark.parametrize("top_k", [2**31 - 1, 2**31, 2**32 + 5, 2**62])
def test_a_top_k_beyond_any_vocabulary(top_k: int, model: Model) -> None:
    """The device's parameters are int32: a larger number must not wrap around to a small one."""
    params = SamplingParams(temperature=2.0, seed=3, top_k=top_k, max_tokens=9)
    engine = ahead(model)
    engine.add_request("a", [1, 2, 3], params)
    check_same(drive(engine).tokens["a", 0], alone(model, [1, 2, 3], params))


def test_bad_parameters_are_refused_before_anything_is_on_the_way(model: Model) -> None:
    engine = ahead(model)
    engine.add_request("a", [1, 2, 3], GREEDY)
    engine.step()
    with pytest.raises(ParameterError):
        engine.add_request("a", [1, 2, 3], GREEDY)
    check_same(drive(engine).tokens["a", 0], alone(model, [1, 2, 3]))


# ---------------------------------------------------------------- known failures


@pytest.mark.parametrize("name", FAILURES)
def test_known_failures_while_running_ahead(name: str, model: Model,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_invariants.engine_of", ahead)
    FAILURES[name][0](model)


def _stale_row(m: pytest.MonkeyPatch) -> None:
    """Row numbers of this step's order, not of the step before."""
    m.setattr(Runner, "_span", rewritten(
        Runner._span, "self.before.row_of[request.id]", "0"))


def _unordered(m: pytest.MonkeyPatch) -> None:
    """Rows handed out in the plan's order, though single tokens go first."""
    m.setattr(Runner, "_launch", rewritten(
        Runner._launch, "enumerate(flight.sampling)", "enumerate(plan.entries)"))


def _blocks_of_the_dead(m: pytest.MonkeyPatch) -> None:
    """A late commit registers blocks that a preemption took away."""
    m.setattr(Scheduler, "commit", rewritten(
        Scheduler.commit, "entry.epoch == request.epoch", "True"))


def _ended_goes_on(m: pytest.MonkeyPatch) -> None:
    m.setattr(Scheduler, "commit", rewritten(
        Scheduler.commit, 'if request.status == "finished":\n            continue', "pass"))


def _wrong_position(m: pytest.MonkeyPatch) -> None:
    """The index of a draw taken from the tokens that the host knows."""
    m.setattr(Runner, "_draw", rewritten(
        Runner._draw, "entry.start + entry.n for", "len(entry.request.tokens) for"))


@pytest.mark.parametrize("naive", [_stale_row, _unordered, _blocks_of_the_dead, _ended_goes_on,
                                   _wrong_position])
def test_the_tests_above_are_sharp(naive: Callable[[pytest.MonkeyPatch], None], model: Model,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_them() -> None:
        for how in ("default", "tiny pool, recompute"):
            test_sampled_tokens_depend_on_nobody_else(how, model)
            test_greedy_tokens_are_those_of_the_request_alone("llama", how)
        test_a_stop_token_while_a_step_runs_ahead(model)

    naive(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        all_of_them()


# ---------------------------------------------------------------- at random


@pytest.mark.parametrize("seed", range(6))
def test_random_lives(seed: int, model: Model) -> None:
    """Arrivals, aborts, ends and preemptions in any order, two steps in flight at times."""
    rng = random.Random(seed)
    engine = ahead(model, num_blocks=rng.choice([14, 24, 60]), watermark=0.0,
                   max_num_seqs=rng.choice([2, 5, 8]),
                   max_num_batched_tokens=rng.choice([8, 20, 64]),
                   max_chunk=rng.choice([None, 3]), host_blocks=rng.choice([0, 20]))
    cases: dict[str, tuple[list[int], SamplingParams]] = {}
    aborted: set[str] = set()
    pool = prompts(40, seed=seed + 50, longest=35)

    def interfere(step: int) -> None:
        if step < 60 and rng.random() < 0.45:
            id, kind = f"r{len(cases)}", rng.choice(KINDS[:3] * 3 + KINDS)
            prompt = rng.choice(pool)
            room = 4 * engine.num_blocks - len(prompt)
            if room < 2:
                return
            cases[id] = prompt, SamplingParams(**kind, seed=step, max_tokens=rng.randint(4, 12),
                                               stop_token_ids=[rng.randrange(200)])
            engine.add_request(id, *cases[id])
        if cases and rng.random() < 0.1:
            id = rng.choice(list(cases))
            if engine.abort(id):
                aborted.add(id)

    cases["r0"] = pool[0], GREEDY
    engine.add_request("r0", *cases["r0"])
    run = drive(engine, before=interfere)
    for id, (prompt, params) in cases.items():
        if id not in aborted:
            most = min(params.max_tokens, engine.scheduler.capacity - len(prompt) + 1)
            one = SamplingParams(**{**vars(params), "max_tokens": most,
                                    "min_tokens": min(params.min_tokens, most)})
            check_same(run.tokens[id, 0], alone(model, prompt, one), f"{id} {params}")
    assert len(cases) > 3, "too short a life to prove anything"


def test_variants_are_chosen_by_what_the_rows_need() -> None:
    greedy, plain = SamplingParams(temperature=0), SamplingParams(temperature=0.5)
    filtered = SamplingParams(temperature=0.5, min_p=0.1)
    off = SamplingParams(temperature=0, top_k=5, top_p=0.5)  # greedy: its filters do nothing
    assert graphs.variant_of([greedy, off]) == "greedy"
    assert graphs.variant_of([greedy, plain]) == "plain"
    assert graphs.variant_of([off, plain]) == "plain"
    assert graphs.variant_of([greedy, filtered]) == "filtered"


def test_compiled_steps_are_not_deterministic() -> None:
    with pytest.raises(ConfigError, match="leave one of them off"):
        EngineConfig(deterministic=True, compile=True)
