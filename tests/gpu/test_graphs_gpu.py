"""Every switch of the engine on a CUDA device: captured or not, ahead or in turn, whose kernels.

One small model, so that few kernels have to be compiled. In float32 every combination gives the
tokens of the request alone; in 16 bits `deterministic` gives the same bits in any company;
quantized runs stay within a bound of the unquantized logits of the same weights.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from infero import kernels
from infero.engine import Engine, EngineConfig
from infero.kernels import formats, language
from infero.model import Model, random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.engine_tools import GREEDY, Alone, alone, captured, check_same, drive, kl, prompts
from tests.test_overlap import KINDS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
SHAPE: dict[str, Any] = {"num_layers": 2, "hidden_size": 128, "intermediate_size": 256,
                         "num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "max_context": 1024,
                         "vocab_size": 512}
SWITCHES = [dict(zip(("cuda_graphs", "overlap", "kernels", "fuse"), values, strict=True))
            for values in itertools.product((True, False), (True, False), ("auto", "torch"),
                                            (True, False))
            if not (values[2] == "torch" and (values[0] or not values[3]))]


@pytest.fixture(autouse=True)
def _strict_fp32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


@cache
def model_of(dtype: torch.dtype = torch.float32) -> Model:
    return random_model(tiny_config(**SHAPE), seed=1, dtype=dtype, device="cuda")


def engine_of(model: Model, **fields: Any) -> Engine:
    defaults: dict = {"num_blocks": 128, "block_size": 16, "max_num_seqs": 8,
                      "max_num_batched_tokens": 64}
    return Engine(model, EngineConfig(**(defaults | fields)))


def cases() -> list[tuple[list[int], SamplingParams]]:
    return [(prompt, SamplingParams(**KINDS[i % len(KINDS)], seed=i, max_tokens=3 + i % 14))
            for i, prompt in enumerate(prompts(20, seed=3, longest=60))]


@cache
def wanted() -> list[Alone]:
    with kernels.using(kernels="torch"):
        return [alone(model_of(), prompt, params) for prompt, params in cases()]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: " ".join(
    f"{k}={v}" for k, v in s.items()))
def test_every_switch_gives_the_same_tokens(switches: dict[str, Any]) -> None:
    """Greedy, sampled, filtered and constrained requests, in two waves over a tight cache."""
    for fields in ({}, {"num_blocks": 14, "watermark": 0.0}):
        engine = engine_of(model_of(), **switches, **fields)
        decoder = engine.runner.decoder
        assert (decoder is not None) == (switches["cuda_graphs"] and switches["kernels"] == "auto"
                                         and language.dots("cuda"))
        left = list(enumerate(cases()))[::-1]

        def arrive(step: int, engine: Engine = engine, left: list = left) -> None:
            while left and (step % 7 == 0 or not engine.has_unfinished()):
                i, (prompt, params) = left.pop()
                engine.add_request(f"r{i}", prompt, params)
                if len(left) == 10 and step == 0:
                    break

        arrive(0)
        run = drive(engine, before=arrive)
        while left:
            arrive(0)
            run.tokens |= drive(engine, before=arrive).tokens
        for i, one in enumerate(wanted()):
            check_same(run.tokens[f"r{i}", 0], one, f"r{i} {cases()[i][1]}")
        if decoder is not None:
            assert not decoder.problem and decoder.captured


def test_a_batch_larger_than_the_largest_graph() -> None:
    engine = engine_of(model_of())
    assert engine.runner.decoder is not None
    engine.runner.decoder.sizes = [1, 2, 4]
    for i in range(8):
        engine.add_request(f"r{i}", [i + 1] * (i + 1), SamplingParams(temperature=0,
                                                                      max_tokens=4 + i))
    run = drive(engine)
    with kernels.using(kernels="torch"):
        for i in range(8):
            params = SamplingParams(temperature=0, max_tokens=4 + i)
            check_same(run.tokens[f"r{i}", 0], alone(model_of(), [i + 1] * (i + 1), params))
    assert {bucket for bucket, _, _ in engine.runner.decoder.captured} <= {1, 2, 4}


def test_what_a_former_owner_left_reaches_nobody() -> None:
    """The cache begins as NaN: padding of rows, blocks and tables must be masked, not multiplied
    by 0."""
    for fields in ({}, {"fuse": False}, {"cuda_graphs": False}):
        engine = engine_of(model_of(), **fields)
        engine.runner.cache.k.fill_(torch.nan), engine.runner.cache.v.fill_(torch.nan)
        for i, prompt in enumerate(prompts(6, seed=9, longest=40)):
            engine.add_request(f"r{i}", prompt, GREEDY)
        run = drive(engine)
        with kernels.using(kernels="torch"):
            for i, prompt in enumerate(prompts(6, seed=9, longest=40)):
                check_same(run.tokens[f"r{i}", 0], alone(model_of(), prompt), f"r{i} {fields}")


def test_steady_decoding_never_waits_but_to_read_tokens() -> None:
    """Neither graphs nor eager steps make the host wait: only the event before a read-back."""
    for fields in ({}, {"cuda_graphs": False}):
        engine = engine_of(model_of(), **fields)
        for i in range(5):
            engine.add_request(f"r{i}", [i, 2, 3], SamplingParams(
                temperature=0.7 * (i % 2), seed=i, max_tokens=40))
        for _ in range(8):
            engine.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(10):
                engine.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        drive(engine)


def rows_of(engine: Engine, some: dict[str, list[int]], most: int) -> dict[tuple[str, int], Tensor]:
    rows = captured(engine)
    for id, prompt in some.items():
        engine.add_request(id, prompt, SamplingParams(temperature=0, max_tokens=most))
    drive(engine)
    return rows


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_deterministic_gives_the_same_bits_in_any_company(quantization: str | None) -> None:
    """bfloat16, alone and batched, whole prompts and chunks, captured and not."""
    some = {f"r{i}": prompt for i, prompt in enumerate(prompts(7, vocab=500, seed=5, longest=400))}
    model = model_of(torch.bfloat16)
    common: dict = {"deterministic": True, "quantization": quantization,
                    "max_num_batched_tokens": 512, "num_blocks": 256, "prefix_caching": False}
    want: dict[tuple[str, int], Tensor] = {}
    for id, prompt in some.items():
        want |= rows_of(engine_of(model, **common), {id: prompt}, 6)
    for fields in ({}, {"max_chunk": 37}, {"max_num_batched_tokens": 61}, {"cuda_graphs": False}):
        got = rows_of(engine_of(model, **(common | fields)), some, 6)
        different = [key for key in want if not torch.equal(got[key], want[key])]
        assert len(want) == 42 and not different, f"{fields}: {different}"


KL = {"int8": 1e-3, "int4": 1e-3, "fp8": 0.05}  # nats; fp8 rounds activations too


@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
def test_quantized_runs_stay_close(kind: str) -> None:
    """Against the same rounded weights, dequantized, in plain PyTorch, after the same prompts."""
    if kind == "fp8" and language.capability("cuda") < (8, 9):
        pytest.skip("no fp8 products on this card")
    model = model_of(torch.bfloat16)
    some = {f"r{i}": prompt for i, prompt in enumerate(prompts(6, vocab=500, seed=6, longest=90))}
    plain = formats.quantize_model(model, kind)
    for layer in plain.layers:
        for name in ("qkv", "o", "gate_up", "down"):
            setattr(layer, name, getattr(layer, name).dequantize())
    plain.head = plain.head.dequantize()
    want = rows_of(engine_of(plain, kernels="torch"), some, 1)
    for fields in ({}, {"max_chunk": 16}):
        got = rows_of(engine_of(model, quantization=kind, **fields), some, 1)
        divergences = [kl(want[key], got[key]) for key in want]
        assert sum(divergences) / len(divergences) < KL[kind], f"{fields}: {divergences}"


def test_an_old_card_dispatches_products_and_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of compute capability 7.5, so far as the dispatch can tell."""
    monkeypatch.setattr(language, "capability", lambda device="cuda": (
        (7, 5) if torch.device(device).type == "cuda" else (0, 0)))
    engine = engine_of(model_of())
    assert engine.runner.decoder is None and not engine.runner.fused and engine.runner.blanks
    for i, (prompt, params) in enumerate(cases()[:6]):
        engine.add_request(f"r{i}", prompt, params)
    run = drive(engine)
    for i, one in enumerate(wanted()[:6]):
        check_same(run.tokens[f"r{i}", 0], one, f"r{i}")
