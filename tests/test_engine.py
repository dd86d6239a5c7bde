"""The engine as a server uses it: add, step, abort; records, metrics, and errors that name things.

Whether its tokens are right is the subject of test_invariants.py.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from infero.engine import Engine, EngineConfig, OutOfMemory, StepRecord
from infero.errors import ConfigError, ParameterError, PromptError, StalePiecesError
from infero.lab import swap
from infero.llm import LLM
from infero.model import Model, random_model
from infero.request import Plan
from infero.runner import Flight
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.engine_tools import GREEDY, alone, check_empty, drive, prompts
from tests.test_llm import Letters

PROMPT = [3, 14, 15, 92, 65]


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """One: threads that wait for each other cost these tiny models more than they compute."""
    torch.set_num_threads(1)


def engine_of(model: Model, on_step: object = None, **fields: object) -> Engine:
    defaults: dict = {"num_blocks": 64, "block_size": 4, "max_num_seqs": 16}
    return Engine(model, EngineConfig(**(defaults | fields)), on_step=on_step)  # type: ignore


@pytest.fixture
def engine(tiny_model: Model) -> Engine:
    return engine_of(tiny_model)


@pytest.fixture
def letters() -> Model:
    model = random_model(tiny_config(vocab_size=90), seed=1)
    model.tokenizer = Letters()  # type: ignore[assignment]
    return model


# ---------------------------------------------------------------- a request's life


def test_chunks_carry_id_index_token_and_end(engine: Engine) -> None:
    assert not engine.has_unfinished() and engine.step() == []
    engine.add_request("a", PROMPT, GREEDY)
    run = drive(engine)
    assert {(c.id, c.index) for c in run.chunks} == {("a", 0)}
    assert len(run.tokens["a", 0]) == 12 and run.reasons == {("a", 0): "length"}
    assert [c.finish_reason for c in run.chunks[:-1]] == [None] * 11
    assert run.chunks[-1].metrics is not None and run.steps == 12


def test_n_completions_of_one_prompt(engine: Engine, tiny_model: Model) -> None:
    params = SamplingParams(seed=7, n=4, max_tokens=6)
    engine.add_request("a", PROMPT, params)
    run = drive(engine)
    assert sorted(run.tokens) == [("a", i) for i in range(4)]
    for i in range(4):
        one = SamplingParams(seed=7 + i, max_tokens=6)
        assert run.tokens["a", i] == alone(tiny_model, PROMPT, one).tokens
    assert engine.stats.prompt_tokens == 5 and engine.stats.tokens_computed == 5 + 3 + 4 * 5


def test_unseeded_completions_differ(engine: Engine) -> None:
    engine.add_request("a", PROMPT, SamplingParams(n=4, max_tokens=12))
    assert len({tuple(t) for t in drive(engine).tokens.values()}) == 4


def test_stop_tokens_and_minimum_length(tiny_model: Model) -> None:
    free = alone(tiny_model, PROMPT).tokens
    stop = free[5]
    for min_tokens, want in ((0, free[: free.index(stop)]), (9, None)):
        engine = engine_of(tiny_model)
        engine.add_request("a", PROMPT, SamplingParams(
            temperature=0, max_tokens=12, min_tokens=min_tokens, stop_token_ids=[stop]))
        run = drive(engine)
        if want is not None:
            assert run.tokens["a", 0] == want and run.reasons["a", 0] == "stop"
            assert run.chunks[-1].token is None
        else:
            assert len(run.tokens["a", 0]) >= 9 and stop not in run.tokens["a", 0][:9]


def test_stop_strings_end_the_text_before_themselves(letters: Model) -> None:
    engine = engine_of(letters)
    engine.add_request("free", [1, 2, 3], GREEDY)
    text = "".join(c.text for c in drive(engine).chunks)
    stop = text[6:8]
    for i, params in enumerate((
        SamplingParams(temperature=0, max_tokens=12, stop=[stop, "zzz"]),
        SamplingParams(temperature=0, max_tokens=12, stop=["zzz"]),
    )):
        engine.add_request(f"r{i}", [1, 2, 3], params)
    run = drive(engine)
    texts = {i: "".join(c.text for c in run.chunks if c.id == f"r{i}") for i in range(2)}
    assert texts == {0: text[: text.index(stop)], 1: text}
    assert run.reasons == {("r0", 0): "stop", ("r1", 0): "length"}


def test_logprobs_of_each_token(engine: Engine, tiny_model: Model) -> None:
    engine.add_request("a", PROMPT, SamplingParams(temperature=0, max_tokens=5, logprobs=3))
    engine.add_request("b", PROMPT, GREEDY)
    run = drive(engine)
    want = alone(tiny_model, PROMPT)
    ours = [c for c in run.chunks if c.id == "a"]
    for chunk, row in zip(ours, want.logits, strict=False):
        assert chunk.logprob is not None and chunk.logprob.token == chunk.token
        logp = row.log_softmax(-1)
        assert chunk.logprob.logprob == pytest.approx(float(logp[chunk.token]), abs=1e-4)
        assert sorted(chunk.logprob.top) == sorted(logp.topk(3).indices.tolist())
    assert all(c.logprob is None for c in run.chunks if c.id == "b")


def test_an_answer_ends_at_the_context_or_at_the_cache(tiny_model: Model) -> None:
    for fields, room in (({}, 28), ({"max_model_len": 110}, 10), ({"num_blocks": 26}, 4)):
        engine = engine_of(tiny_model, **fields)
        engine.add_request("a", [1] * 100, SamplingParams(temperature=0, max_tokens=500))
        run = drive(engine)
        assert len(run.tokens["a", 0]) == room and run.reasons["a", 0] == "length"


# ---------------------------------------------------------------- aborts


@pytest.mark.parametrize("after", [0, 1, 3])
def test_abort_at_any_moment(engine: Engine, after: int) -> None:
    engine.add_request("a", [1] * 30, GREEDY)
    engine.add_request("b", [2] * 30, GREEDY)
    for _ in range(after):
        engine.step()
    assert engine.abort("a") is True and engine.abort("a") is False
    engine.check_integrity()
    run = drive(engine)
    assert set(run.tokens) == {("b", 0)}
    assert engine.abort("b") is False and engine.abort("never heard of") is False


def test_abort_ends_all_completions(engine: Engine) -> None:
    engine.add_request("a", PROMPT, SamplingParams(n=3, seed=0, max_tokens=9))
    engine.step()
    engine.step()
    assert engine.abort("a") and not engine.has_unfinished()
    check_empty(engine)


def test_abort_during_the_forward_pass(engine: Engine) -> None:
    """From a signal handler, or from another thread: the step in flight comes to nothing for it."""
    engine.add_request("a", PROMPT, GREEDY)
    engine.add_request("b", PROMPT, GREEDY)
    execute, calls = engine.runner.execute, []

    def interrupted(plan: Plan, *rest: object, **named: object) -> Flight:
        flight = execute(plan, *rest, **named)  # type: ignore[arg-type]
        calls.append(plan)
        if len(calls) == 3:
            engine.abort("a")
        return flight

    engine.runner.execute = interrupted  # type: ignore[method-assign]
    run = drive(engine)
    assert len(run.tokens["a", 0]) == 2 and len(run.tokens["b", 0]) == 12
    assert ("a", 0) not in run.reasons


def test_an_id_can_be_used_again(engine: Engine) -> None:
    first = None
    for _ in range(3):
        engine.add_request("a", PROMPT, GREEDY)
        tokens = drive(engine).tokens["a", 0]
        first = first or tokens
        assert tokens == first
    engine.add_request("a", PROMPT, GREEDY)
    engine.abort("a")
    engine.add_request("a", PROMPT, GREEDY)
    assert drive(engine).tokens["a", 0] == first


def test_random_aborts_leak_nothing(tiny_model: Model) -> None:
    for seed in range(3):
        rng = random.Random(seed)
        engine = engine_of(tiny_model, num_blocks=20, host_blocks=rng.choice([0, 8]),
                           max_num_batched_tokens=24)
        for i, prompt in enumerate(prompts(30, seed=seed)):
            engine.add_request(f"r{i}", prompt, SamplingParams(
                seed=i, max_tokens=1 + i % 9, n=1 + (i % 4 == 0)))

        def interfere(step: int, engine: Engine = engine, rng: random.Random = rng) -> None:
            if rng.random() < 0.4:
                engine.abort(f"r{rng.randrange(30)}")

        drive(engine, before=interfere)


# ---------------------------------------------------------------- errors by name


@pytest.mark.parametrize(("prompt", "words"), [
    ([], "empty"), ([211], "211"), ([-1], "-1"), ([1] * 128, "context is 128"),
])
def test_prompts_that_cannot_run(engine: Engine, prompt: list[int], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        engine.add_request("a", prompt, GREEDY)
    check_empty(engine)


def test_a_prompt_longer_than_the_pool(tiny_model: Model) -> None:
    engine = engine_of(tiny_model, num_blocks=4)
    with pytest.raises(PromptError, match="KV cache: 16 tokens in 4 blocks"):
        engine.add_request("a", [1] * 20, GREEDY)
    check_empty(engine)
    engine.add_request("a", [1] * 12, GREEDY)
    assert len(drive(engine).tokens["a", 0]) == 4


def test_a_prompt_longer_than_max_model_len(tiny_model: Model) -> None:
    engine = engine_of(tiny_model, max_model_len=10)
    with pytest.raises(PromptError, match="10"):
        engine.add_request("a", [1] * 10, GREEDY)
    engine.add_request("a", [1] * 9, GREEDY)
    assert len(drive(engine).tokens["a", 0]) == 1


def test_zero_max_tokens_is_refused() -> None:
    with pytest.raises(ParameterError, match="max_tokens is 0"):
        SamplingParams(max_tokens=0)


def test_an_id_in_use(engine: Engine) -> None:
    engine.add_request("a", PROMPT, SamplingParams(n=2, seed=1, max_tokens=4))
    with pytest.raises(ParameterError, match="'a' is in use"):
        engine.add_request("a", PROMPT, GREEDY)
    engine.add_request("b:1", PROMPT, GREEDY)
    with pytest.raises(ParameterError, match="in use"):
        engine.add_request("b", PROMPT, SamplingParams(n=3, seed=1, max_tokens=4))
    engine.check_integrity()  # and nothing of the refused group is queued
    with pytest.raises(ParameterError, match="in use"):
        engine.add_request("a:1", PROMPT, GREEDY)
    drive(engine)


@pytest.mark.parametrize("fields", [
    {"logit_bias": {211: 1.0}}, {"stop_token_ids": [5000]}, {"stop_token_ids": [-1]},
])
def test_token_ids_outside_the_vocabulary_harm_nobody(engine: Engine, fields: dict) -> None:
    """Refused when they arrive: within a step they would end everybody's request."""
    engine.add_request("good", PROMPT, GREEDY)
    with pytest.raises(ParameterError, match="vocabulary of 211"):
        engine.add_request("bad", PROMPT, SamplingParams(max_tokens=3, min_tokens=1, **fields))
    assert len(drive(engine).tokens["good", 0]) == 12


def test_more_logprobs_than_tokens_exist() -> None:
    engine = engine_of(random_model(tiny_config(vocab_size=8), seed=1))
    engine.add_request("a", [1, 2], SamplingParams(temperature=0, max_tokens=3, logprobs=20))
    run = drive(engine)
    assert all(c.logprob and len(c.logprob.top) == 8 for c in run.chunks)


def test_prompts_of_other_kinds_of_numbers(engine: Engine, tiny_model: Model) -> None:
    want = alone(tiny_model, PROMPT).tokens
    engine.add_request("np", list(np.array(PROMPT)), GREEDY)  # type: ignore[arg-type]
    engine.add_request("tuple", tuple(PROMPT), GREEDY)  # type: ignore[arg-type]
    engine.add_request("torch", list(torch.tensor(PROMPT)), GREEDY)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match=r"2\.5"):
        engine.add_request("float", [1, 2.5], GREEDY)  # type: ignore[list-item]
    with pytest.raises(PromptError, match="text"):
        engine.add_request("str", ["text"], GREEDY)  # type: ignore[list-item]
    run = drive(engine)
    assert [run.tokens[id, 0] for id in ("np", "tuple", "torch")] == [want] * 3


def test_prompt_lists_belong_to_the_caller(engine: Engine) -> None:
    prompt = list(PROMPT)
    engine.add_request("a", prompt, GREEDY)
    prompt.clear()
    assert len(drive(engine).tokens["a", 0]) == 12 and prompt == []


@pytest.mark.parametrize(("fields", "error", "words"), [
    ({"block_size": 0}, ConfigError, "block_size is 0"),
    ({"num_blocks": 0}, ConfigError, "num_blocks is 0"),
    ({"gpu_memory_utilization": 1.5}, ConfigError, "gpu_memory_utilization is 1.5"),
    ({"kv_memory_bytes": 10, "num_blocks": None}, ConfigError, "not even one request fits"),
    ({"max_num_seqs": 600, "max_num_batched_tokens": 512}, ConfigError,
     "max_num_batched_tokens is 512"),
])
def test_configurations_that_cannot_run(tiny_model: Model, fields: dict, error: type,
                                        words: str) -> None:
    with pytest.raises(error, match=words):
        engine_of(tiny_model, **fields)


def test_the_cache_takes_what_it_is_given(tiny_model: Model) -> None:
    per_block = 4 * 2 * 3 * 2 * 8 * 4  # tokens, K and V, layers, heads, dim, bytes
    engine = engine_of(tiny_model, num_blocks=None, kv_memory_bytes=10 * per_block + 5)
    assert engine.num_blocks == 10 and engine.runner.cache.bytes == 10 * per_block
    roomy = engine_of(tiny_model, num_blocks=None)
    assert roomy.num_blocks <= 16 * 32, "no more than its requests could use"


# ---------------------------------------------------------------- failures inside a step


def test_a_failed_step_leaves_a_usable_engine(engine: Engine) -> None:
    engine.add_request("a", PROMPT, GREEDY)
    engine.step()
    execute = engine.runner.execute

    def fails(*given: object, **named: object) -> None:
        raise RuntimeError("a bolt from the blue")

    engine.runner.execute = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="blue") as caught:
        engine.step()
    assert "1 requests were aborted" in str(caught.value.__notes__)
    check_empty(engine)
    engine.runner.execute = execute  # type: ignore[method-assign]
    engine.add_request("a", PROMPT, GREEDY)
    assert len(drive(engine).tokens["a", 0]) == 12


def test_out_of_memory_says_what_to_do(engine: Engine) -> None:
    def fails(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine.add_request("a", PROMPT, GREEDY)
    engine.runner.execute = fails  # type: ignore[method-assign]
    with pytest.raises(OutOfMemory, match="lower max_num_batched_tokens"):
        engine.step()
    check_empty(engine)


def test_streams_end_when_another_s_step_failed(letters: Model) -> None:
    """A stream whose request was aborted behind its back says so, and does not spin for ever."""
    llm = LLM(letters, num_blocks=64, block_size=4)
    first, second = llm.stream("abc", GREEDY), llm.stream("abd", GREEDY)
    next(first), next(second)
    assert llm.engine is not None

    def fails(*given: object, **named: object) -> None:
        raise RuntimeError("blue")

    execute, llm.engine.runner.execute = llm.engine.runner.execute, fails  # type: ignore
    with pytest.raises(RuntimeError, match="blue"):
        list(first)
    llm.engine.runner.execute = execute  # type: ignore[method-assign]
    with pytest.raises(Exception, match="abort"):
        list(second)
    assert len(llm.generate("abc", GREEDY)[0].tokens) == 12


def test_a_piece_installed_later_stops_the_engine(engine: Engine,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    engine.add_request("a", PROMPT, GREEDY)
    engine.step()
    later = swap.generation() + 1
    monkeypatch.setattr(swap, "generation", lambda: later)
    with pytest.raises(StalePiecesError, match="build a new LLM"):
        engine.step()


# ---------------------------------------------------------------- records and metrics


class Clock:
    """A clock that advances a second each time somebody looks."""

    def __init__(self) -> None:
        self.now_s = -1.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_step_records_tell_the_whole_story(tiny_model: Model) -> None:
    records: list[StepRecord] = []
    engine = engine_of(tiny_model, records.append, num_blocks=14, max_num_batched_tokens=20)
    for i, prompt in enumerate(prompts(8, longest=20, seed=3)):
        engine.add_request(f"r{i}", prompt, SamplingParams(temperature=0, max_tokens=10))

    def interfere(step: int) -> None:
        if step == 2:
            engine.abort("r5")

    run = drive(engine, before=interfere)
    assert len(records) == run.steps and [r.step for r in records] == list(range(run.steps))
    tokens: dict[str, list[int]] = {}
    for record in records:
        json.dumps(record.asdict())
        assert record.start_s <= record.end_s
        assert 0 <= record.forward_s <= record.end_s - record.start_s
        assert 0 <= record.cached_blocks <= record.free_blocks <= 14
        for entry in record.entries:
            assert set(entry) == {"id", "start", "n", "samples", "token", "blocks"}
            assert len(entry["blocks"]) * 4 >= entry["start"] + entry["n"]
            assert (entry["token"] is not None) == entry["samples"]
            if entry["samples"]:
                tokens.setdefault(entry["id"], []).append(entry["token"])
        assert set(record.cached_tokens) == set(record.admitted)
    assert {i: t for (i, _), t in run.tokens.items() if i != "r5"} == {
        i: t for i, t in tokens.items() if i != "r5"}
    assert [i for r in records for i in r.aborted] == ["r5"]
    assert sorted(i for r in records for i in r.finished) == [f"r{i}" for i in range(8) if i != 5]
    preempted = sum(len(r.preempted) for r in records)
    assert preempted > 0 and engine.stats.preemptions == preempted
    assert engine.stats.tokens_computed == sum(e["n"] for r in records for e in r.entries)
    assert engine.stats.steps == len(records)


def test_aborts_are_recorded_once_wherever_they_come_from(tiny_model: Model) -> None:
    records: list[StepRecord] = []

    def on_step(record: StepRecord) -> None:
        records.append(record)
        if record.step == 1:
            engine.abort("b")

    engine = engine_of(tiny_model, on_step)
    for id in "abc":
        engine.add_request(id, PROMPT, GREEDY)
    engine.abort("c")
    drive(engine)
    assert [i for r in records for i in r.aborted] == ["c", "b"]
    silent = engine_of(tiny_model)
    for _ in range(5):
        silent.add_request("a", PROMPT, GREEDY)
        silent.abort("a")
    silent.add_request("a", PROMPT, GREEDY)
    drive(silent)
    assert silent._aborted == [], "nobody reads it: it must not grow"


def test_metrics_of_a_request(tiny_model: Model) -> None:
    engine = Engine(tiny_model, EngineConfig(num_blocks=64, block_size=4, max_num_seqs=1),
                    clock=Clock())
    engine.add_request("a", PROMPT, GREEDY, arrival_s=0.0)
    engine.add_request("b", PROMPT, GREEDY, arrival_s=0.0)
    run = drive(engine)
    a, b = (c.metrics for c in run.chunks if c.metrics is not None)
    assert a.queue_s == 0.0 and b.queue_s > a.queue_s
    for metrics in (a, b):
        assert metrics.prompt_tokens == 5 and len(metrics.token_times_s) == 12
        assert metrics.ttft_s > metrics.queue_s and min(metrics.itl_s) > 0
        assert metrics.preemptions == 0
    assert a.cached_tokens == 0 and b.cached_tokens == 4


def test_metrics_count_preemptions(tiny_model: Model) -> None:
    engine = engine_of(tiny_model, num_blocks=8, watermark=0.0)
    for i in range(3):
        engine.add_request(f"r{i}", [i] * 9, SamplingParams(temperature=0, max_tokens=14))
    run = drive(engine)
    counts = [c.metrics.preemptions for c in run.chunks if c.metrics]
    assert sum(counts) == engine.stats.preemptions > 0


def test_salts_keep_tenants_apart(engine: Engine) -> None:
    def cached(salt: str) -> int:
        engine.add_request("a", PROMPT * 4, GREEDY, salt=salt)
        return next(c.metrics for c in drive(engine).chunks if c.metrics).cached_tokens

    assert [cached(s) for s in ("x", "x", "y", "", "y", "x")] == [0, 16, 0, 0, 16, 16]


def test_priorities_and_lengths_decide_who_goes_first(tiny_model: Model) -> None:
    for policy, fields, want in (
        ("priority", [{"priority": 2}, {"priority": 0}, {"priority": 1}], "bca"),
        ("sjf", [{"expected_tokens": 9}, {"expected_tokens": 5}, {"expected_tokens": 1}], "cba"),
        ("fcfs", [{"arrival_s": 3.0}, {"arrival_s": 1.0}, {"arrival_s": 2.0}], "bca"),
    ):
        engine = engine_of(tiny_model, max_num_seqs=1, policy=policy)
        for id, more in zip("abc", fields, strict=True):
            engine.add_request(id, PROMPT, SamplingParams(temperature=0, max_tokens=3),
                               **({"arrival_s": 0.0} | more))
        run = drive(engine)
        assert "".join(c.id for c in run.chunks if c.finish_reason) == want


def test_ten_thousand_queued_requests() -> None:
    model = random_model(tiny_config(num_layers=1), seed=1)
    engine = engine_of(model, num_blocks=400, max_num_seqs=100, max_num_batched_tokens=400)
    begin = time.perf_counter()
    params = SamplingParams(temperature=0, max_tokens=2)
    for i in range(10_000):
        engine.add_request(f"r{i}", [i % 200, i % 7], params)
    for i in range(0, 10_000, 2):
        assert engine.abort(f"r{i}")
    done = 0
    while engine.has_unfinished():
        done += sum(c.finish_reason is not None for c in engine.step())
    check_empty(engine)
    assert done == 5_000 and engine.stats.steps <= 110
    assert time.perf_counter() - begin < 60


# ---------------------------------------------------------------- LLM in front of it


def test_generate_takes_many_prompts_each_with_its_own(letters: Model) -> None:
    llm = LLM(letters, num_blocks=32, block_size=4, max_num_seqs=4)
    some = [SamplingParams(temperature=0, max_tokens=1 + i) for i in range(9)]
    outs = llm.generate(["ab", "abc", "x"] * 3, some, priority=[2, 1, 0] * 3, progress=True)
    assert [len(o.tokens) for o in outs] == list(range(1, 10))
    assert outs[3].tokens == alone(letters, letters.tokenizer.encode("ab"), some[3]).tokens
    assert llm.generate([]) == []
    with pytest.raises(ParameterError, match="2 params were given for 3 prompts"):
        llm.generate(["a", "b", "c"], some[:2])
    assert llm.engine is not None
    check_empty(llm.engine)


def test_a_bad_prompt_among_good_ones_takes_none(letters: Model) -> None:
    llm = LLM(letters, num_blocks=32, block_size=4)
    with pytest.raises(PromptError):
        llm.generate([[1], [2], [5000]], GREEDY)
    assert llm.engine is not None
    check_empty(llm.engine)


def test_streams_can_be_read_in_turn_and_closed(letters: Model) -> None:
    llm = LLM(letters, num_blocks=32, block_size=4)
    texts = ["abc", "abd", "abe"]
    want = [o.tokens for o in llm.generate(texts, GREEDY)]
    streams = [llm.stream(t, GREEDY) for t in texts]
    got: list[list[int]] = [[], [], []]
    for _ in range(4):
        for i, stream in enumerate(streams):
            got[i].append(next(stream).token)  # type: ignore[arg-type]
    streams[1].close()  # type: ignore[attr-defined]
    for i in (0, 2):
        got[i] += [c.token for c in streams[i] if c.token is not None]
    assert [got[0], got[1], got[2]] == [want[0], want[1][:4], want[2]]
    assert llm.engine is not None
    check_empty(llm.engine)


def test_options_that_do_not_exist(letters: Model) -> None:
    with pytest.raises(ConfigError, match="no option 'max_sequences'"):
        LLM(letters, max_sequences=4)
    with pytest.raises(ConfigError, match="paged engine"):
        LLM(letters, paged=False, num_blocks=4)


def test_kernels_are_launched_on_the_models_gpu(engine: Engine, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    """Triton launches on the current device, and events are recorded there: not always GPU 0."""
    current = [0]

    @contextlib.contextmanager
    def device(where: torch.device) -> Iterator[None]:
        current.append(where.index)
        yield
        current.pop()

    seen = list[int]()
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(engine, "model", SimpleNamespace(device=torch.device("cuda", 1)))
    monkeypatch.setattr(engine, "_step", lambda: seen.append(current[-1]) or [])
    monkeypatch.setattr(engine.runner, "warm_up", lambda: seen.append(current[-1]))
    engine.step(), engine.warm_up()
    assert seen == [1, 1] and current == [0]


def test_a_budget_is_chosen_only_where_none_is_given(tiny_model: Model) -> None:
    assert engine_of(tiny_model).config.max_num_batched_tokens == 512
    assert engine_of(tiny_model, max_num_seqs=600).config.max_num_batched_tokens == 600
    cuda = torch.device("cuda")
    assert EngineConfig().on(cuda).max_num_batched_tokens == 4096
    assert EngineConfig(max_num_batched_tokens=512).on(cuda).max_num_batched_tokens == 512
