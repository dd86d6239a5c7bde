"""GGUF matrices as they are stored: the numbers of the dequantized model, without its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infero import evaluate, loading
from infero.cache import contiguous
from infero.engine import Engine, EngineConfig
from infero.errors import ConfigError, LoadError
from infero.kernels import cpu_products, formats
from infero.llm import LLM
from infero.loading import cache, gguf_stored, weights
from infero.loading.gguf_file import GgufFile
from infero.model import Model, forward, random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.test_loading_gguf import checkpoint_tensors, gguf, write_gguf

pytestmark = pytest.mark.skipif(cpu_products.layout() is None, reason="no int4 product here")
MATRICES = ("qkv", "o", "gate_up", "down")


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", "off")


def shape(**changes: object):  # type: ignore[no-untyped-def]
    return tiny_config(vocab_size=260, hidden_size=64, intermediate_size=96, num_heads=4,
                       num_kv_heads=2, head_dim=16, **changes)


def logits(model: Model, count: int) -> torch.Tensor:
    store = contiguous.allocate(model.config, 1, 64, model.dtype, model.device)
    tokens = torch.arange(count) + 3
    return forward(model, tokens, contiguous.next_batch(store, [0], [count]), store)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("changes", [dict(), dict(tie_embeddings=True),
                                     dict(architecture="qwen3", qk_norm=True),
                                     dict(architecture="qwen2", qkv_bias=True)])
def test_the_same_numbers(kind: str, changes: dict, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(shape(**changes), seed=2), kind)
    whole = loading.load(path, dtype="float32", device="cpu")
    stored = loading.load(path, dtype="float32", device="cpu", keep_quantized=True)
    for ours, theirs in zip(stored.layers, whole.layers, strict=True):
        for name in MATRICES:
            weight = getattr(ours, name)
            assert isinstance(weight, cpu_products.NibbleWeight)
            assert weight.planes == (2 if kind == "Q8_0" else 1) and weight.group == 32
            torch.testing.assert_close(weight.dequantize(), getattr(theirs, name),
                                       rtol=1e-6, atol=1e-7)
        assert torch.equal(ours.post_norm, theirs.post_norm)
    assert (stored.head is stored.embedding) == bool(changes.get("tie_embeddings"))
    for count in (1, 9, 40):
        torch.testing.assert_close(logits(stored, count), logits(whole, count),
                                   rtol=1e-4, atol=1e-4)
    packed = sum(getattr(layer, name).nbytes for layer in stored.layers for name in MATRICES)
    dense = sum(getattr(layer, name).nbytes for layer in whole.layers for name in MATRICES)
    assert packed < dense * (0.55 if kind == "Q8_0" else 0.3) * 1.1


def test_through_the_engine(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(shape(), seed=2), "Q4_1")
    params = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True)
    prompts = [[5, 6, 7], list(range(20, 60))]
    options = dict(num_blocks=32, device="cpu", dtype="float32")
    wanted = LLM(str(path), **options).generate(prompts, params)
    llm = LLM(str(path), quantization="stored", **options)
    assert [o.tokens for o in llm.generate(prompts, params)] == [o.tokens for o in wanted]
    again = LLM(llm.model, quantization="stored", num_blocks=8)  # loaded so: as it is
    assert again.model.layers[0].qkv is llm.model.layers[0].qkv
    dense = loading.load(path, dtype="float32", device="cpu")
    with pytest.raises(ConfigError, match="keep_quantized=True"):
        Engine(dense, EngineConfig(quantization="stored"))


def test_auto_is_what_the_kernels_are_written_for(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(shape(), seed=2), "Q4_0")
    model = loading.load(path, device="cpu", keep_quantized=True)
    assert model.dtype == torch.bfloat16 and model.embedding.element_size() == 2
    whole = loading.load(path, dtype="float32", device="cpu")
    near, exact = logits(model, 8).double(), logits(whole, 8).double()
    assert float((near - exact).norm() / exact.norm()) < 0.02


def test_mixed_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Matrices that no kernel takes as stored are kept whole, with one line that says so."""
    model = random_model(shape(), seed=2)
    writer_kind = {"blk.0.attn_v.weight": "Q8_0", "output.weight": "F32"}
    path = write_gguf(tmp_path / "m.gguf", model, "Q4_1")
    file = GgufFile(path)
    tensors = checkpoint_tensors(model)
    for name, kind in writer_kind.items():  # rewritten by hand: the writer has one kind for all
        assert name in tensors and name in file.tensors and kind
    mixed = _rewritten(tmp_path / "mixed.gguf", model, writer_kind)
    whole = loading.load(mixed, dtype="float32", device="cpu")
    stored = loading.load(mixed, dtype="float32", device="cpu", keep_quantized=True)
    assert isinstance(stored.layers[0].qkv, torch.Tensor)
    assert isinstance(stored.head, torch.Tensor)
    assert isinstance(stored.layers[0].o, cpu_products.NibbleWeight)
    assert "2 matrices" in caplog.text
    torch.testing.assert_close(logits(stored, 5), logits(whole, 5), rtol=1e-4, atol=1e-4)


def _rewritten(path: Path, model: Model, kinds: dict[str, str]) -> Path:
    real = gguf.quantize

    def chosen(values, code):  # type: ignore[no-untyped-def]
        return real(values, code)

    import numpy as np

    writer = gguf.GGUFWriter
    add = writer.add_tensor

    def add_tensor(self, key, values, raw_dtype=None):  # type: ignore[no-untyped-def]
        if key in kinds:
            plain = np.ascontiguousarray(checkpoint_tensors(model)[key].numpy())
            if kinds[key] == "F32":
                return add(self, key, plain)
            raw_dtype = gguf.GGMLQuantizationType[kinds[key]]
            values = chosen(plain, raw_dtype)
        return add(self, key, values, raw_dtype=raw_dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "add_tensor", add_tensor)
        return write_gguf(path, model, "Q4_1")


def test_refused(tmp_path: Path) -> None:
    model = random_model(shape(), seed=2)
    path = write_gguf(tmp_path / "m.gguf", model, "Q5_0")
    with pytest.raises(ConfigError, match="Q4_0 and Q4_1, and on a CPU Q8_0"):
        loading.load(path, device="cpu", keep_quantized=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(LoadError, match=r"no \.gguf file"):
        loading.load(folder, keep_quantized=True)


def test_on_a_gpu_four_bits_are_infero_s_own_format(tmp_path: Path) -> None:
    """The matrices that a GPU would get; they compute on any device."""
    path = write_gguf(tmp_path / "m.gguf", random_model(shape(), seed=2), "Q4_1")
    file, whole = GgufFile(path), loading.load(path, dtype="float32", device="cpu")
    parts = [weights.Part("blk.0.attn_q.weight", (64, 64), 4),
             weights.Part("blk.0.attn_k.weight", (32, 64), 2),
             weights.Part("blk.0.attn_v.weight", (32, 64))]
    blocks = gguf_stored.matrix(file, parts, True)
    assert blocks is not None
    blocks.scales[3, 1], blocks.offsets[3, 1] = 0.0, -0.25  # a block of one number
    wanted = whole.layers[0].qkv.clone()
    wanted[3, 32:64] = -0.25
    weight = gguf_stored.packed(blocks, torch.float32, torch.device("meta"))
    assert isinstance(weight, formats.Int4Weight) and weight.group == 32
    assert weight.device.type == "meta"
    here = gguf_stored.int4(blocks, torch.float32)
    torch.testing.assert_close(here.dequantize(), wanted, rtol=1e-5, atol=1e-6)


def test_the_cache_keeps_packed_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "m.gguf", random_model(shape(tie_embeddings=True), seed=2), "Q4_1")
    first = loading.load(path, device="cpu", keep_quantized=True)
    monkeypatch.setattr(loading, "convert_gguf", None)  # the second does without
    second = loading.load(path, device="cpu", keep_quantized=True)
    assert second.head is second.embedding
    assert torch.equal(logits(first, 7), logits(second, 7))
    for ours, theirs in zip(second.layers, first.layers, strict=True):
        for name in MATRICES:
            one, other = getattr(ours, name), getattr(theirs, name)
            assert torch.equal(one.packed, other.packed) and torch.equal(one.scales, other.scales)
            assert (one.group, one.planes, one.shape) == (other.group, other.planes, other.shape)
    entries = sorted((tmp_path / "cache" / "weights").glob("*.json"))
    assert len(entries) == 1 and entries[0].stem.endswith(str(cache.form(first.device)))


def test_the_real_model(smollm2: Model) -> None:
    """102 MB, of which 98 lie in the file; the float32 form has the dequantized model's numbers."""
    stored = loading.load(device="cpu", keep_quantized=True)
    assert stored.parameter_bytes() < 103e6
    ids = evaluate.token_ids(smollm2.tokenizer, "evaluation", 96)
    score = evaluate.evaluate(stored, ids, smollm2)
    assert score.kl is not None and score.kl < 4e-3
