"""Captured decode steps without a GPU: fixed buffers, buckets, padding, and an engine that runs so.

A CUDA graph repeats the same kernels on the same addresses. Here a recorded step is the same call
of the same function on the same buffers, with Triton's kernels interpreted: what depends on the
buffers, on padding or on tokens the host has not seen goes wrong here as it would on a GPU.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from infero import graphs, kernels
from infero.cache import kv
from infero.engine import Engine, EngineConfig
from infero.kernels import language
from infero.lab import swap
from infero.model import Model, random_model
from infero.runner import Ragged, Runner, Span, pack
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.engine_tools import alone, captured, check_same, drive
from tests.test_invariants import rewritten

# ---------------------------------------------------------------- buckets


@pytest.mark.parametrize("largest", [1, 2, 3, 8, 31, 32, 33, 64, 100, 256])
def test_buckets(largest: int) -> None:
    sizes = graphs.buckets(largest)
    assert sizes == sorted(set(sizes)) and sizes[-1] == largest and sizes[0] == 1
    for n in range(1, largest + 1):
        bucket = graphs.bucket_of(n, sizes)
        assert bucket is not None and n <= bucket < max(2 * n, n + 32)
        assert bucket == min(size for size in sizes if size >= n)
    assert graphs.bucket_of(largest + 1, sizes) is None


def test_few_buckets_for_many_requests() -> None:
    assert len(graphs.buckets(256)) == 13
    assert graphs.buckets(40) == [1, 2, 4, 8, 16, 32, 40]


def test_launches_of_a_step() -> None:
    config = tiny_config(num_layers=28)
    assert graphs.launches(config) == 28 * 6 + 3
    assert graphs.launches(config, fused=False) > 2 * graphs.launches(config)


# ---------------------------------------------------------------- buffers


def dirty(bucket: int, width: int) -> graphs.Buffers:
    """Buffers as an earlier step left them."""
    rows = [np.full(bucket, 77, np.int32) for _ in range(5)]
    return graphs.Buffers(*rows, np.full((bucket, width), 5, np.int32))


@pytest.mark.parametrize("seed", range(5))
def test_a_step_in_the_buffers(seed: int) -> None:
    rng = random.Random(seed)
    bucket, size = rng.choice([1, 4, 8]), rng.choice([1, 4, 16])
    n = rng.randint(1, bucket)
    spans = []
    for _ in range(n):
        start = rng.randrange(3 * size)
        table = rng.sample(range(50), start // size + 1)
        token = rng.choice([rng.randrange(1000), -1 - rng.randrange(bucket)])
        spans.append(Span([token], start, table, True))
    buffers = dirty(bucket, 6)
    graphs.fill(buffers, pack(spans, size), [span.block_table for span in spans])
    for row, span in enumerate(spans):
        token = span.tokens[0]
        known = (int(buffers.ids[row]), -1) if token >= 0 else (0, -1 - token)
        assert (token, -1) == known or (int(buffers.ids[row]), int(buffers.sources[row])) == known
        assert buffers.positions[row] == span.start
        assert buffers.contexts[row] == span.start + 1
        assert buffers.slots[row] == span.block_table[-1] * size + span.start % size
        assert buffers.tables[row, : len(span.block_table)].tolist() == span.block_table
    for row in range(n, bucket):
        padding = (buffers.ids[row], buffers.positions[row], buffers.slots[row],
                   buffers.contexts[row], buffers.sources[row])
        assert padding == (0, 0, -1, 0, -1)
    assert ((buffers.tables >= 0) & (buffers.tables < 50)).all()


def test_filling_leaves_the_packed_step_alone() -> None:
    ragged = Ragged([4, -2], [3, 5], [3, 9], [1, 1], [4, 6], [0, 1])
    before = SimpleNamespace(**{k: list(v) for k, v in vars(ragged).items()})
    graphs.fill(dirty(4, 3), ragged, [[0], [1, 2]])
    assert vars(ragged) == vars(before)


@pytest.mark.parametrize("bucket", [1, 2, 3, 5, 8, 31, 32, 250])
def test_views_of_a_stage_are_aligned_and_apart(bucket: int) -> None:
    """Triton compiles another variant of a kernel for an address that is no multiple of 16."""
    stage = graphs.Stage(bucket, 32, torch.device("cpu"))
    base, spans = stage.device.data_ptr(), []
    for tensor in stage.tensors.values():
        start = tensor.data_ptr() - base
        assert start % 16 == 0
        spans.append((start, start + tensor.nbytes))
    spans.sort()
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert spans[-1][1] <= stage.device.nbytes


def test_what_is_sent_arrives_and_the_next_step_does_not_disturb_it() -> None:
    stage = graphs.Stage(4, 16, torch.device("cpu"))
    copies = []
    for turn in range(2 * graphs.RING):
        host = stage.next()
        copies.append(id(host))
        host.buffers.ids[:] = turn
        host.buffers.tables[:] = turn + 1
        graphs.set_rows(host, [SamplingParams(temperature=0.5, top_k=turn + 3, top_p=0.25,
                                              min_p=0.125)] * 3, [2**62 + turn] * 3)
        assert stage.tensors["ids"].tolist() != [turn] * 4 or turn == 0
        stage.send(host)
        assert stage.tensors["ids"].tolist() == [turn] * 4
        assert bool((stage.tables == turn + 1).all())
        rows = stage.rows(3)
        assert rows.seed.tolist() == [2**62 + turn] * 3 and rows.top_k.tolist() == [turn + 3] * 3
        assert rows.temperature.tolist() == [0.5] * 3
        assert rows.top_p.tolist() == [0.25] * 3 and rows.min_p.tolist() == [0.125] * 3
    assert copies[: graphs.RING] == copies[graphs.RING :]
    assert len(set(copies)) == graphs.RING


def test_a_blank_stage_has_no_request() -> None:
    t = graphs.Stage(3, 16, torch.device("cpu")).tensors
    assert t["slots"].tolist() == [-1] * 3 and t["sources"].tolist() == [-1] * 3
    assert t["contexts"].tolist() == [0] * 3 and t["ids"].tolist() == [0] * 3


# ---------------------------------------------------------------- an engine of recorded steps


class Recorded:
    """Stands for a CUDA graph: the call that was made while it was recorded, made again."""

    recording: Recorded | None = None

    def __init__(self) -> None:
        self.replays = 0
        self.again: Any = None

    def replay(self) -> None:
        self.replays += 1
        self.again()

    def pool(self) -> str:
        return "pool"


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Decoder.capture` as it is, with a recorder in the place of CUDA's."""

    @contextlib.contextmanager
    def record(graph: Recorded, **_: Any) -> Iterator[None]:
        Recorded.recording = graph
        yield
        Recorded.recording = None

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *a, **k: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *a: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", record)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(tiny_config(num_layers=1, hidden_size=16, intermediate_size=24,
                                    vocab_size=53, num_heads=2, num_kv_heads=1, head_dim=8), seed=3)


def engine_of(model: Model, largest: int = 4, **fields: Any) -> Engine:
    """An engine on a CPU whose decode steps are recorded; its cache begins as NaN."""
    defaults: dict = dict(kernels="triton", fuse=False, overlap=True, num_blocks=40, block_size=4,
                          max_num_seqs=4, max_num_batched_tokens=64)
    engine = Engine(model, EngineConfig(**(defaults | fields)))
    runner = engine.runner
    size = engine.config.block_size
    runner.cache = kv.empty(model.config, engine.num_blocks + 1, size, model.dtype, "cpu")
    runner.cache.k.fill_(torch.nan), runner.cache.v.fill_(torch.nan)
    body = runner._body

    def watched(*args: Any) -> torch.Tensor:
        result = body(*args)
        graph = Recorded.recording
        if graph is not None:
            def again() -> None:
                with torch.inference_mode(), kernels.using(runner.options):
                    result.copy_(body(*args))

            graph.again = again
        return result

    with kernels.using(runner.options):
        width = graphs.aligned(-(-runner.longest // size), graphs.WIDTHS)
        runner.decoder = graphs.Decoder(model, watched, runner._batch_of, runner.drawn, largest,
                                        width)
    return engine


def replays(engine: Engine) -> dict[tuple[int, int, str], int]:
    decoder = engine.runner.decoder
    assert decoder is not None
    return {key: one.graph.replays for key, one in decoder.captured.items()}


needs_triton = pytest.mark.skipif(not language.available(), reason="no Triton here")
CASES = [([5, 9], {}), ([1, 2, 3, 4, 5], {"temperature": 0.8}), ([7], {"temperature": 1.5}),
         ([4, 4, 4], {"temperature": 0.9, "top_p": 0.7}), ([8, 1, 30, 2, 51, 6, 7, 3, 2], {})]


def params_of(i: int, most: int = 6) -> SamplingParams:
    return SamplingParams(**({"temperature": 0} | CASES[i][1]), seed=i, max_tokens=most - i % 3)


@needs_triton
@pytest.mark.parametrize("overlap", [True, False], ids=["ahead", "in turn"])
@pytest.mark.parametrize("largest", [4, 2])
def test_recorded_steps_give_the_same_tokens(largest: int, overlap: bool, model: Model,
                                             recorder: None) -> None:
    """Five requests, four at a time: every bucket, every variant; and batches too large for any."""
    engine = engine_of(model, largest, overlap=overlap)
    for i, (prompt, _) in enumerate(CASES):
        engine.add_request(f"r{i}", prompt, params_of(i))
    run = drive(engine)
    for i, (prompt, _) in enumerate(CASES):
        check_same(run.tokens[f"r{i}", 0], alone(model, prompt, params_of(i)), f"r{i}")
    counts = replays(engine)
    assert sum(counts.values()) > 2 and all(bucket <= largest for bucket, _, _ in counts)
    assert not overlap or {v for _, _, v in counts} >= {"greedy"}


@needs_triton
def test_a_learners_sampler_draws_beside_the_graphs(model: Model, recorder: None) -> None:
    """The step is captured up to its logits; what draws is the learner's function, not a kernel."""
    calls = 0

    def top_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return swap.reference("infero.sampling.top_p")(logits, p)

    swap.install("infero.sampling.top_p", top_p)
    try:
        engine = engine_of(model)
        for i, (prompt, _) in enumerate(CASES):
            engine.add_request(f"r{i}", prompt, params_of(i))
        run = drive(engine)
    finally:
        swap.uninstall()
    for i, (prompt, _) in enumerate(CASES):
        check_same(run.tokens[f"r{i}", 0], alone(model, prompt, params_of(i)), f"r{i}")
    assert calls and {variant for _, _, variant in replays(engine)} == {"logits"}


@needs_triton
def test_a_graph_is_recorded_while_a_step_is_on_its_way(model: Model, recorder: None) -> None:
    """Recording runs the step on blank rows: tokens that wait to be read must survive that."""
    engine = engine_of(model)
    engine.add_request("a", [5, 9], SamplingParams(temperature=0, max_tokens=9))
    for step in range(7):
        engine.step()
        if step == 2:  # a second request: other buckets, and soon another variant
            engine.add_request("b", [7], SamplingParams(temperature=0.8, seed=1, max_tokens=3))
    before = replays(engine)
    run = drive(engine)
    assert len(before) >= 2
    want = alone(model, [5, 9], SamplingParams(temperature=0, max_tokens=9)).tokens
    assert run.tokens["a", 0] == want[-len(run.tokens["a", 0]) :]


@needs_triton
def test_requests_that_the_host_chooses_for(model: Model, recorder: None) -> None:
    engine = engine_of(model)
    fixed = SamplingParams(temperature=0, max_tokens=5, allowed_token_ids=[3, 5, 8])
    engine.add_request("fixed", [1, 2], fixed)
    engine.add_request("free", [3], SamplingParams(temperature=0, max_tokens=7))
    run = drive(engine)
    check_same(run.tokens["fixed", 0], alone(model, [1, 2], fixed))
    check_same(run.tokens["free", 0], alone(model, [3], SamplingParams(temperature=0,
                                                                       max_tokens=7)))
    assert {"logits", "greedy"} <= {variant for _, _, variant in replays(engine)}


@needs_triton
@pytest.mark.parametrize("recording", [True, False], ids=["recorded", "not recorded"])
def test_what_the_host_adds_to_16_bit_logits(recording: bool, recorder: None) -> None:
    """Penalties and biases are float32, whatever the forward pass returns."""
    config = tiny_config(num_layers=1, hidden_size=16, intermediate_size=24, vocab_size=53,
                         num_heads=2, num_kv_heads=1, head_dim=8)
    engine = engine_of(random_model(config, seed=3, dtype=torch.bfloat16), fuse=True)
    if not recording:
        engine.runner.decoder = None
    for id, asked in {"biased": {"logit_bias": {3: 100.0}}, "both": {
            "logit_bias": {3: 100.0, 5: 99.0}, "repetition_penalty": 2.0}}.items():
        engine.add_request(id, [5, 9], SamplingParams(temperature=0, max_tokens=3, **asked))
    tokens = drive(engine).tokens
    assert tokens["biased", 0] == [3, 3, 3] and len(tokens["both", 0]) == 3
    assert not recording or sum(replays(engine).values()) > 0


@needs_triton
def test_ends_aborts_and_preemption_between_recorded_steps(model: Model, recorder: None) -> None:
    engine = engine_of(model, num_blocks=7, watermark=0.0)
    cases = {f"r{i}": [i + 1, 2, 3, 4, 5, 6][: 3 + i] for i in range(4)}
    params = SamplingParams(temperature=0, max_tokens=6)
    for id, prompt in cases.items():
        engine.add_request(id, prompt, params)
    engine.add_request("gone", [9, 9], params)
    run = drive(engine, before=lambda step: step == 5 and engine.abort("gone"))
    for id, prompt in cases.items():
        check_same(run.tokens[id, 0], alone(model, prompt, params), id)
    assert engine.stats.preemptions > 0 and sum(replays(engine).values()) > 0


@needs_triton
def test_the_six_launches_recorded(model: Model, recorder: None) -> None:
    engine = engine_of(model, fuse=True)
    assert engine.runner.fused
    for i in (0, 3):
        engine.add_request(f"r{i}", CASES[i][0], params_of(i, 4))
    run = drive(engine)
    for i in (0, 3):
        check_same(run.tokens[f"r{i}", 0], alone(model, CASES[i][0], params_of(i, 4)), f"r{i}")
    assert sum(replays(engine).values()) > 0


@needs_triton
def test_a_capture_that_fails_is_said_once_and_the_engine_goes_on(
        model: Model, recorder: None, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.contextmanager
    def refuse(graph: Recorded, **_: Any) -> Iterator[None]:
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    engine = engine_of(model)
    engine.add_request("a", [5, 9], SamplingParams(temperature=0, max_tokens=6))
    run = drive(engine)
    check_same(run.tokens["a", 0], alone(model, [5, 9], SamplingParams(temperature=0,
                                                                       max_tokens=6)))
    assert not replays(engine) and len(caplog.records) == 1
    assert "uncaptured" in caplog.text and "not permitted" in caplog.text


@needs_triton
def test_a_pass_that_breaks_off_has_ended_before_the_buffers_are_restored(
        model: Model, recorder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels that it launched on the side must not see slots of an earlier step."""
    engine = engine_of(model)
    decoder, waits = engine.runner.decoder, list[str]()
    assert decoder is not None

    def broken(*_: Any) -> torch.Tensor:
        waits.append("body")
        raise RuntimeError("cannot be captured")

    decoder.body = broken
    here = SimpleNamespace(wait_stream=lambda other: waits.append("waited for"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *a: here)
    assert not decoder.capture(2, 1, "greedy") and decoder.problem
    assert waits == ["body", "waited for"]


@needs_triton
def test_graphs_of_one_bucket_share_what_they_read(model: Model, recorder: None) -> None:
    """A graph keeps addresses: what one variant reads must outlive the capture of the next."""
    runner = engine_of(model, deterministic=True, fuse=True).runner
    assert runner.decoder is not None
    stage = runner.decoder.stage(4)
    first, second = (runner._batch_of(stage, 1).memo["layout"] for _ in range(2))
    assert first.query_starts.tolist() == [0, 1, 2, 3, 4]
    assert first.query_starts.dtype == torch.int32
    assert first.query_starts.data_ptr() == second.query_starts.data_ptr()
    assert runner._batch_of(stage, 2).memo["layout"].query_starts.tolist() == [0, 2, 4, 6, 8]


@needs_triton
@pytest.mark.parametrize("longest", [2048, 32768, 131072])
def test_the_compiled_step_is_compiled_for_few_buckets(longest: int, model: Model,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile gives up at the ninth variant of a function, and takes long for each."""
    from infero.kernels import decode

    runner = engine_of(model, compile=True).runner
    runner.longest = longest
    monkeypatch.setattr(decode, "processors", lambda device: 132)
    found = {runner._batch_of(graphs.Stage(bucket, 16, torch.device("cpu")), 1)
             .memo["layout"].splits for bucket in graphs.buckets(256)}
    assert found <= {1, 4, 16, 64}


def _padding_writes(m: pytest.MonkeyPatch) -> None:
    """Padding rows that write into slot 0 and not into the block that nobody owns."""
    m.setattr(Runner, "_body", rewritten(Runner._body, "slots < 0, self.dump, slots",
                                         "slots < 0, 0, slots"))


def _sources_ignored(m: pytest.MonkeyPatch) -> None:
    m.setattr(Runner, "_body", rewritten(Runner._body, "where.sources < 0, ids.long(), drawn",
                                         "where.sources < 0, ids.long(), ids.long()"))


def _drawn_lost(m: pytest.MonkeyPatch) -> None:
    m.setattr(graphs.Decoder, "capture", rewritten(graphs.Decoder.capture,
                                                   "self.drawn.copy_(kept)", "pass"))


def _contexts_of_before(m: pytest.MonkeyPatch) -> None:
    m.setattr(graphs, "fill", rewritten(graphs.fill, "ragged.context_lens, 0",
                                        "ragged.positions, 0"))


@needs_triton
@pytest.mark.parametrize("naive", [_padding_writes, _sources_ignored, _drawn_lost,
                                   _contexts_of_before])
def test_the_tests_above_are_sharp(naive: Any, model: Model, recorder: None,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_them() -> None:
        test_recorded_steps_give_the_same_tokens(4, True, model, recorder)
        test_a_graph_is_recorded_while_a_step_is_on_its_way(model, recorder)
        test_ends_aborts_and_preemption_between_recorded_steps(model, recorder)

    naive(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        all_of_them()


# ---------------------------------------------------------------- which kernels run where


@pytest.mark.parametrize(("capability", "attends"), [((7, 5), False), ((8, 0), True),
                                                     ((9, 0), True)])
def test_below_8_0_products_and_attention_are_pytorchs(
        capability: tuple[int, int], attends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton has no path to a T4's tensor cores; what needs none of them stays Triton."""
    monkeypatch.setattr(language, "capability", lambda device="cuda": capability)
    gpu = torch.device("cuda")
    assert kernels.triton(gpu) == language.available()
    assert kernels.attends(gpu) == (attends and language.available())
    with kernels.using(kernels="torch"):
        assert not kernels.triton(gpu) and not kernels.attends(gpu)


# ---------------------------------------------------------------- the same bits in any company


@needs_triton
def test_deterministic_bits_do_not_depend_on_batch_or_chunks(recorder: None) -> None:
    """float32, interpreted: contexts of several blocks of keys, cut differently each time."""
    config = tiny_config(num_layers=1, hidden_size=16, intermediate_size=24, vocab_size=53,
                         num_heads=4, num_kv_heads=2, head_dim=8, max_context=600)
    model = random_model(config, seed=3)
    some = {"a": [5, 9, 3], "b": [(7 * i) % 53 for i in range(150)]}
    common: dict = dict(deterministic=True, fuse=True, num_blocks=120, block_size=16,
                        prefix_caching=False, max_num_batched_tokens=512)

    def rows(ids: str, **fields: Any) -> dict[tuple[str, int], torch.Tensor]:
        engine = engine_of(model, **(common | fields))
        found = captured(engine)
        for id in ids:
            engine.add_request(id, some[id], SamplingParams(temperature=0, max_tokens=2))
        drive(engine)
        assert sum(replays(engine).values()) > 0
        return found

    want = rows("a") | rows("b")
    got = rows("ab", max_chunk=149)  # the last token of the prompt comes alone
    assert [key for key in want if not torch.equal(got[key], want[key])] == []
