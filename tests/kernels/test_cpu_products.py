"""Packed int8 and int4 weights on a CPU against the weights they stand for; the lean pass."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infero import kernels
from infero import model as m
from infero.cache import contiguous
from infero.engine import Engine, EngineConfig
from infero.errors import ConfigError
from infero.kernels import cpu_products, formats, lean
from infero.llm import LLM
from infero.model import ModelConfig, random_model
from infero.sampling import SamplingParams
from tests.kernels import oracles

SHAPES = ((64, 32), (80, 96), (192, 576), (10, 64), (96, 512))
KINDS = (("int8", {}), ("int4", {"group": 64}), ("int4", {"group": 32, "symmetric": False}),
         ("int4", {"group": 4096}), ("int4", {"group": 96, "symmetric": False}))
BOUND = {torch.bfloat16: 5e-3, torch.float32: 2e-6, torch.float16: 1e-3}

pytestmark = pytest.mark.skipif(cpu_products.layout() is None, reason="no int4 product here")


def config(**changes: object) -> ModelConfig:
    values = dict(architecture="llama", vocab_size=96, hidden_size=64, intermediate_size=96,
                  num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, max_context=128)
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return oracles.randn(sum(shape), *shape, dtype=dtype)


def error(y: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((y.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("kind, options", KINDS)
@pytest.mark.parametrize("out, inputs", SHAPES)
def test_products(out: int, inputs: int, kind: formats.Kind, options: dict, dtype: torch.dtype
                  ) -> None:
    weight = formats.quantize(randn(out, inputs, dtype=dtype) / inputs**0.5, kind, **options)
    packed = cpu_products.made(weight)
    assert packed is not None and packed.shape == weight.shape and packed.dtype == dtype
    exact = weight.dequantize().double()
    assert error(packed.dequantize(), exact) < BOUND[dtype]
    ids = torch.tensor([0, out - 1, out // 2, 3, 3])
    assert error(packed.rows(ids), exact[ids]) < BOUND[dtype]
    bias = randn(out, dtype=dtype)
    for tokens in (1, 2, 7, 17, 60):
        x = randn(tokens, 2 * inputs, dtype=dtype)[:, :inputs]  # rows apart, as norms leave them
        wanted = x.double() @ exact.t()
        assert error(packed.multiply(x), wanted) < BOUND[dtype]
        assert error(weight.multiply(x, bias), wanted + bias.double()) < BOUND[dtype]
        assert packed.multiply(x).dtype == dtype


def test_every_number_of_a_byte_and_of_a_nibble() -> None:
    values = torch.arange(256, dtype=torch.uint8).repeat(64, 1)
    scales = torch.full((64, 1), 0.5)
    whole = cpu_products.grouped(values, scales, None, 8, torch.float32)
    assert torch.equal(whole.dequantize(), (values.float() - 128) / 2)
    nibbles = cpu_products.grouped(values & 15, scales, torch.full((64, 1), 3.0), 4, torch.float32)
    wanted = ((values & 15).float() - 8) / 2 + 3
    assert torch.equal(nibbles.dequantize(), wanted)
    identity = torch.eye(256)
    assert torch.equal(torch.cat([whole.multiply(row[None]) for row in identity]).t(),
                       whole.dequantize())
    assert torch.equal(torch.cat([nibbles.multiply(row[None]) for row in identity]).t(), wanted)


def test_a_copy_is_made_once_and_follows_its_weight() -> None:
    weight = formats.quantize(randn(64, 64), "int8")
    first = cpu_products.of(weight)
    assert cpu_products.of(weight) is first
    assert isinstance(weight, formats.Int8Weight)
    weight.values.neg_()
    x = randn(1, 64)
    assert error(weight.multiply(x), x.double() @ weight.dequantize().double().t()) < 2e-6
    assert cpu_products.of(weight) is not first
    assert "_packed" not in [name for name, v in vars(copy.deepcopy(weight)).items()
                             if isinstance(v, torch.Tensor)]


@pytest.mark.parametrize("out, inputs", [(16, 33), (16, 40), (64, 24)])
def test_shapes_that_cannot_be_packed_are_still_multiplied(out: int, inputs: int) -> None:
    """PyTorch's products can crash on rows that are no multiple of their vectors."""
    for kind in ("int8", "int4"):
        weight = formats.quantize(randn(out, inputs), kind, 64)  # type: ignore[arg-type]
        assert cpu_products.of(weight) is None
        x = randn(3, inputs)
        assert error(weight.multiply(x), x.double() @ weight.dequantize().double().t()) < 2e-6


def test_training_through_a_quantized_weight() -> None:
    weight = formats.quantize(randn(64, 64), "int4", 64)
    x = randn(2, 64).requires_grad_()
    weight.multiply(x).sum().backward()
    assert torch.allclose(x.grad, weight.dequantize().sum(0).expand(2, 64), atol=1e-5)


def test_packed_weights_stay_on_the_cpu() -> None:
    packed = cpu_products.adopt(formats.quantize(randn(64, 64), "int8"))
    assert isinstance(packed, cpu_products.NibbleWeight) and packed.to("cpu") is packed
    with pytest.raises(ConfigError, match="cannot move to meta"):
        packed.to("meta")


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_an_engine_keeps_the_packed_form_alone(kind: str) -> None:
    model = random_model(config(), seed=3)
    engine = Engine(model, EngineConfig(quantization=kind, num_blocks=16))  # type: ignore[arg-type]
    matrices = [w for layer in engine.model.layers
                for w in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    assert all(isinstance(w, cpu_products.NibbleWeight) for w in [*matrices, engine.model.head])
    assert isinstance(model.layers[0].qkv, torch.Tensor)  # what was given is left as it is
    whole = formats.quantize_model(model, kind)  # type: ignore[arg-type]
    dense = random_model(config(), seed=3)
    for layer, rounded in zip(dense.layers, whole.layers, strict=True):
        for name in ("qkv", "o", "gate_up", "down"):
            setattr(layer, name, getattr(rounded, name).dequantize())
    dense.head = whole.head.dequantize()  # type: ignore[attr-defined]
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    prompts = [[5, 6, 7], list(range(20, 64))]
    options = dict(num_blocks=32, max_num_seqs=4, max_num_batched_tokens=32)
    wanted = [o.tokens for o in LLM(dense, **options).generate(prompts, params)]
    found = LLM(model, quantization=kind, **options).generate(prompts, params)
    assert [o.tokens for o in found] == wanted


# ---------------------------------------------------------------- the pass in few calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "qkv_bias": True, "mlp_bias": True},
                                     {"sliding_window": 5, "sliding_layers": (1,)}])
def test_the_lean_pass_is_the_model_s_own(changes: dict, dtype: torch.dtype) -> None:
    model = random_model(config(**changes), dtype=dtype, seed=1)
    for lens in ([1], [9], [1, 1, 3]):
        stores = [contiguous.allocate(model.config, len(lens), 64, dtype, model.device)
                  for _ in range(2)]
        before = [4 * i for i in range(len(lens))]
        logits = []
        for store, run in zip(stores, (m.forward, lean.forward), strict=True):
            store.k.normal_(generator=torch.Generator().manual_seed(5))
            store.v.normal_(generator=torch.Generator().manual_seed(6))
            batch = contiguous.next_batch(store, before, lens)
            tokens = torch.arange(sum(lens)) + 7
            logits.append(run(model, tokens, batch, store, None))
        assert torch.equal(*logits)
        assert torch.equal(stores[0].k, stores[1].k) and torch.equal(stores[0].v, stores[1].v)


def test_the_lean_pass_is_left_to_engines_that_ask_for_nothing_else(
        monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(config())
    assert lean.usable(model)
    with kernels.using(fuse=False):
        assert not lean.usable(model)
    with kernels.using(kernels="steps"):
        assert not lean.usable(model)
    monkeypatch.setattr(m, "swiglu", lambda gate, up: gate * up)
    assert not lean.usable(model)


# ---------------------------------------------------------------- other CPUs

PROGRAM = """
import torch
from infero.kernels import cpu_products, formats
torch.manual_seed(0)
assert cpu_products.layout() is not None
for dtype, bound in ((torch.bfloat16, 5e-3), (torch.float32, 2e-6)):
    for kind in ("int8", "int4"):
        weight = formats.quantize((torch.randn(80, 576) / 24).to(dtype), kind, 64)
        exact = weight.dequantize().double()
        ids = torch.arange(80)
        assert float((cpu_products.of(weight).rows(ids) - exact).norm() / exact.norm()) < bound
        for tokens in (1, 3, 60):
            x = torch.randn(tokens, 576).to(dtype)
            wanted = x.double() @ exact.t()
            assert float((weight.multiply(x) - wanted).norm() / wanted.norm()) < bound
print(cpu_products.layout().block)
"""


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_with_fewer_instructions(capability: str) -> None:
    """The layout is another one there; it is found, and the products are right."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                          env=environment, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr
