"""The roofline arithmetic against counts made in other ways: real models, real modules, search."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch

from infero import hardware, kernels, model, roofline
from infero.errors import ParameterError
from infero.roofline import MODELS, ModelShape

LLAMA, SMOL = MODELS["llama-3-8b"], MODELS["smollm2-135m"]
H100 = hardware.DEVICES["h100"]


def config_of(shape: ModelShape) -> model.ModelConfig:
    return model.ModelConfig(
        shape.architecture, shape.vocab_size, shape.hidden_size, shape.intermediate_size,
        shape.num_layers, shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.max_context,
        tie_embeddings=shape.tie_embeddings, qk_norm=shape.qk_norm,
    )


@pytest.mark.parametrize(
    ("name", "millions"),
    [("smollm2-135m", 134.515), ("qwen3-0.6b", 596.050), ("llama-3-8b", 8030.261),
     ("llama-3-70b", 70553.706)],
)
def test_parameters_are_the_published_counts(name: str, millions: float) -> None:
    assert roofline.parameters(MODELS[name]) / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen3-0.6b"])
def test_parameters_are_those_of_a_real_model(name: str) -> None:
    config = config_of(MODELS[name])
    meta = model.random_model(
        model.ModelConfig(
            config.architecture, 320, 48, 80, 3, 6, 2, 16, 64,
            tie_embeddings=config.tie_embeddings, qk_norm=config.qk_norm,
        )
    )
    assert roofline.parameters(meta.config) * 4 == meta.parameter_bytes()


@pytest.mark.parametrize(("batch", "old", "new"), [(1, 0, 7), (3, 12, 1), (2, 5, 4)])
def test_flops_are_those_that_torch_counts(
    batch: int, old: int, new: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's counter sees the engine's matrix products; plain attention there is not causal."""
    from torch.utils.flop_counter import FlopCounterMode

    from infero.cache import contiguous

    config = model.ModelConfig("llama", 300, 48, 80, 3, 6, 2, 16, 64)
    m = model.random_model(config)
    cache = contiguous.allocate(config, batch, 64, torch.float32, "cpu")
    step = contiguous.next_batch(cache, [old] * batch, [new] * batch)
    rows = torch.arange(1, batch + 1) * new - 1
    monkeypatch.setattr(kernels, "attention", model.attend)  # the counter skips the fused one
    with FlopCounterMode(display=False) as counter:
        model.forward(m, torch.randint(300, (batch * new,)), step, cache, rows)
    context = old + new
    want = roofline.step_flops(config, roofline.count_weights(config), batch, new, context)
    hidden_pairs = new * context - (new * context - new * (new - 1) / 2)
    want += 4 * batch * hidden_pairs * config.num_layers * config.num_heads * config.head_dim
    assert counter.get_total_flops() == want


def test_bytes_of_a_real_cache() -> None:
    from infero.cache import contiguous

    cache = contiguous.allocate(config_of(SMOL), 3, 50, torch.bfloat16, "cpu")
    read = roofline.kv_bytes(SMOL, batch=3, new=0, context=50)
    assert read == cache.bytes == 150 * roofline.kv_bytes_per_token(SMOL)


def test_the_worked_example_of_chapter_2() -> None:
    assert roofline.count_weights(LLAMA) == (6_979_321_856, 525_336_576)
    assert roofline.weight_bytes(LLAMA) == 15_009_316_864
    assert roofline.kv_bytes_per_token(LLAMA) == 131_072
    assert roofline.weight_bytes(LLAMA, 4.25) == pytest.approx(3.987e9, rel=1e-3)


def test_memory_and_compute_bound_and_between() -> None:
    assert roofline.roofline_time_s(1e12, 1e9, 1e15, 1e12) == 1e-3
    assert roofline.roofline_time_s(1e12, 5e9, 1e15, 1e12) == 5e-3
    decode = roofline.predict(LLAMA, H100, batch=1, context=1024)
    prefill = roofline.predict(LLAMA, H100, new=2048, context=2048)
    assert (decode.bound, prefill.bound) == ("memory", "compute")
    assert decode.intensity < H100.ridge() < prefill.intensity
    assert decode.time_s == decode.memory_s and prefill.time_s == prefill.compute_s


@pytest.mark.parametrize("context", [1, 64, 256])
def test_critical_batch_is_where_the_times_cross(context: int) -> None:
    turn = roofline.predict_critical_batch(LLAMA, H100, context)
    below = roofline.predict(LLAMA, H100, batch=math.floor(turn), context=context)
    above = roofline.predict(LLAMA, H100, batch=math.ceil(turn), context=context)
    assert (below.bound, above.bound) == ("memory", "compute")


def test_a_long_context_never_turns_compute_bound() -> None:
    assert roofline.predict_critical_batch(LLAMA, H100, 1024) == math.inf
    assert roofline.predict(LLAMA, H100, batch=100_000, context=1024).bound == "memory"


def test_utilisations() -> None:
    assert roofline.mbu(1e9, 2e-3, 1e12) == pytest.approx(0.5)
    assert roofline.mfu(1e12, 4e-3, 1e15) == pytest.approx(0.25)


def test_what_does_not_fit_is_said() -> None:
    big = roofline.main_table("llama-3-70b", "h100:datasheet")
    assert any("Not in 80 GB" in note for note in big.notes)
    assert all(len(row) == len(big.columns) for row in big.rows)
    assert roofline.predict(LLAMA, H100, batch=1, context=8192).fits


@pytest.mark.parametrize("step", [{"batch": 0}, {"new": 0}, {"new": 9, "context": 8}])
def test_steps_that_cannot_be(step: dict[str, int]) -> None:
    with pytest.raises(ParameterError, match="context counts the new tokens"):
        roofline.predict(LLAMA, H100, **step)  # type: ignore[arg-type]


def test_names() -> None:
    assert roofline.shape("HuggingFaceTB/SmolLM2-135M-Instruct") is SMOL
    assert roofline.shape("meta-llama/Meta-Llama-3-8B") is LLAMA
    with pytest.raises(ParameterError, match="Did you mean llama-3-8b"):
        roofline.shape("llama-8b")
    assert roofline.bits_of("int4") == 4.25 and roofline.bits_of(3.5) == 3.5
    with pytest.raises(ParameterError, match="fp8"):
        roofline.bits_of("int3")


def test_plain_data_for_the_explorer() -> None:
    data = json.loads(json.dumps(roofline.as_json()))
    assert {row["slug"] for row in data["devices"]} == set(hardware.DEVICES)
    assert data["models"]["llama-3-8b"]["num_kv_heads"] == 8


def test_the_table_prints(capsys: pytest.CaptureFixture[str]) -> None:
    roofline.print_prediction("llama-3-8b", "h100:datasheet", batch=32, weights="int4")
    out = capsys.readouterr().out
    assert "decode ×32" in out and "4.25-bit weights" in out


def test_a_card_without_bf16_is_predicted_in_fp16() -> None:
    table = roofline.main_table("smollm2-135m", "t4:datasheet")
    assert any("(fp16)" in note for note in table.notes)


def test_no_torch_is_needed() -> None:
    code = "import sys, infero.roofline; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
