"""The contract of tests/test_invariants.py for models whose weights are quantized.

Every format runs through the engine in every way of running it: batched, chunked, with prefixes,
preempted, swapped, without graphs. It is compared with the same quantized model alone. At the first
mismatch each side's token must be in the other's top 5, and the teacher-forced mean divergence
stays under a bound for each format. Where activations are rounded too (W8A8), a last bit can move a
whole step of the rounding, so only the divergence is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from infero import loading
from infero.kernels.ordered import OrderedWeight
from infero.llm import LLM
from infero.model import Model, random_model
from infero.quant.fold import MATRICES
from infero.quant.quantizer import Settings, quantize_model, quantize_to
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.engine_tools import Alone, alone, captured, check_same, drive, kl, prompts
from tests.test_invariants import ARCHITECTURES, ENGINES, SWITCHES, engine_of, jobs

TEXT = dict(length=32, calibration_tokens=256)
KINDS: dict[str, Settings] = {
    "int8": Settings("int8"),
    "fp8": Settings("fp8"),
    "int4": Settings("rtn", group=32),
    "int4 with zero points": Settings("rtn", group=64, symmetric=False),
    "3 bits, one scale a row": Settings("rtn", bits=3, group=None),
    "int4 by gptq": Settings("gptq", group=32, act_order=True, **TEXT),
    "int4 by awq": Settings("awq", group=32, symmetric=False, **TEXT),
    "3 bits by qat": Settings("qat", bits=3, group=32, **TEXT | {"steps": 2}),
    "int4, ordered": Settings("rtn", group=32),
    "w8a8": Settings("w8a8"),
    "smoothquant": Settings("smoothquant", **TEXT),
    "outliers": Settings("outliers", threshold=2.0, **TEXT),
}
ROUNDED_TOO = ("w8a8", "smoothquant", "outliers")  # activations as well as weights
WAYS = ENGINES | SWITCHES
EVERY_WAY = ("int8", "int4")
SOME_WAYS = ("default", "chunks of 3", "tiny pool, recompute", "tiny pool, swap", "deterministic",
             "one kernel an operation")
#: Mean teacher-forced divergence in nats, engine against the request alone: in float32 all that
#: differs is the order of sums; a rounded activation can move by 1/127 of its token's largest.
MEAN_KL = {torch.float32: 1e-9, torch.bfloat16: 1e-3}
MEAN_KL_ROUNDED = {torch.float32: 1e-4, torch.bfloat16: 4e-3}
#: On a GPU the kernels differ by the number of rows; FP8 rounds activations of more than a few.
MEAN_KL_CUDA = {torch.float32: 1e-5, torch.bfloat16: 2e-3}
MEAN_KL_FP8_CUDA = 3e-2
TOP = 5


def rounds_activations(kind: str, device: str) -> bool:
    """Whether a token's numbers depend on how it is batched by more than the order of sums."""
    return kind in ROUNDED_TOO or (kind == "fp8" and device != "cpu")


def bound(kind: str, device: str, dtype: torch.dtype) -> float:
    """Nats a token."""
    if kind == "fp8" and device != "cpu":
        return MEAN_KL_FP8_CUDA
    if rounds_activations(kind, device):
        return MEAN_KL_ROUNDED[dtype]
    return (MEAN_KL if device == "cpu" else MEAN_KL_CUDA)[dtype]


@pytest.fixture
def device() -> str:
    return "cpu"


@pytest.fixture(autouse=True)
def _strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(1)
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@cache
def model_of(kind: str, device: str, dtype: torch.dtype = torch.float32,
             architecture: str = "llama") -> Model:
    config = tiny_config(**{"hidden_size": 64, "intermediate_size": 96}
                         | ARCHITECTURES[architecture])
    plain = random_model(config, seed=1, dtype=dtype, device=device)
    ids = torch.randint(0, 200, (8, 32), generator=torch.Generator().manual_seed(2))
    settings = KINDS[kind]
    model = quantize_model(plain, settings, ids)
    if kind == "int4, ordered":
        for i, layer in enumerate(model.layers):
            for name in MATRICES:
                weight = getattr(layer, name)
                order = torch.randperm(weight.shape[1],
                                       generator=torch.Generator().manual_seed(i)).to(device)
                setattr(layer, name, OrderedWeight(weight, order))
    return model


@cache
def wanted(kind: str, device: str, dtype: torch.dtype, architecture: str) -> list[Alone]:
    model = model_of(kind, device, dtype, architecture)
    return [alone(model, prompt, params) for prompt, params in jobs()]


def check(kind: str, how: str, device: str, dtype: torch.dtype, architecture: str) -> None:
    """All requests through the engine, against each alone."""
    engine = engine_of(model_of(kind, device, dtype, architecture), **WAYS[how])
    rows = captured(engine)
    for i, (prompt, params) in enumerate(jobs()):
        engine.add_request(f"r{i}", prompt, params, priority=i % 3)
    run = drive(engine)
    divergences = []
    for i, ((prompt, _), want) in enumerate(zip(jobs(), wanted(kind, device, dtype, architecture),
                                                strict=True)):
        got = run.tokens[f"r{i}", 0]
        assert len(got) == len(want.tokens)
        for at, (a, b) in enumerate(zip(got, want.tokens, strict=True)):
            ours, theirs = rows[f"r{i}", len(prompt) + at], want.logits[at]
            divergences.append(kl(theirs, ours))
            if a != b:
                if not rounds_activations(kind, device):
                    assert a in theirs.topk(TOP).indices and b in ours.topk(TOP).indices
                break
        if dtype == torch.float32 and device == "cpu" and kind not in ROUNDED_TOO:
            check_same(got, want, f"{kind}, {how}, r{i}")
    mean = sum(divergences) / len(divergences)
    assert mean < bound(kind, device, dtype), f"{kind}, {how}: {mean:.2g} nats a token"
    assert len(divergences) > 50, "they part too early to say anything"
    if "pool" in how:
        assert engine.stats.preemptions > 0, "the pool was not tight enough to prove anything"


@pytest.mark.parametrize(("kind", "how"), [
    (kind, how) for kind in KINDS for how in WAYS if kind in EVERY_WAY or how in SOME_WAYS])
def test_tokens_are_those_of_the_request_alone(kind: str, how: str, device: str) -> None:
    check(kind, how, device, torch.float32, "llama")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["default", "tiny pool, swap"])
def test_in_bfloat16(kind: str, how: str, device: str) -> None:
    check(kind, how, device, torch.bfloat16, "llama")


@pytest.mark.parametrize("kind", ["int8", "int4", "w8a8", "int4 by gptq"])
@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "llama"])
def test_every_architecture(architecture: str, kind: str, device: str) -> None:
    check(kind, "budget of 9", device, torch.float32, architecture)


@pytest.mark.parametrize("kind", KINDS)
def test_an_aborted_neighbour_and_several_samples(kind: str, device: str) -> None:
    model = model_of(kind, device)
    one = SamplingParams(temperature=0, max_tokens=9)
    engine = engine_of(model, num_blocks=30)
    for i, prompt in enumerate(prompts(8, seed=4)):
        engine.add_request(f"r{i}", prompt, one)
    sampled = SamplingParams(temperature=0.9, seed=3, n=3, max_tokens=6)
    engine.add_request("s", [1, 2, 3, 4, 5], sampled)
    run = drive(engine, before=lambda step: step == 3 and engine.abort("r2"))
    for i, prompt in enumerate(prompts(8, seed=4)):
        if i != 2 and device == "cpu" and kind not in ROUNDED_TOO:
            check_same(run.tokens[f"r{i}", 0], alone(model, prompt, one), f"{kind}, r{i}")
    assert [len(run.tokens["s", k]) for k in range(3)] == [6, 6, 6]


def test_a_folder_answers_like_the_model_in_memory(tmp_path: Path, device: str) -> None:
    """Text in, text out: what `infero chat --model FOLDER` runs."""
    plain = random_model(tiny_config(hidden_size=64, intermediate_size=96), seed=1, device=device)
    settings = KINDS["int4"]
    path = quantize_to(plain, settings, tmp_path / "q", device=device)
    params = SamplingParams(temperature=0, max_tokens=12)
    llm = LLM(str(path), dtype="float32", device=device, num_blocks=64, block_size=4)
    memory = quantize_model(plain, settings)
    for prompt, out in zip(prompts(6), llm.generate(prompts(6), params), strict=True):
        if device == "cpu":
            check_same(out.tokens, alone(memory, prompt, params))
        assert len(out.tokens) == 12
    assert not isinstance(llm.model.layers[0].qkv, torch.Tensor)
    assert loading.load(path, dtype="float32", device=device).parameter_bytes() < (
        plain.parameter_bytes())
