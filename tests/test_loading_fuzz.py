"""Damaged model files: whatever happens to their bytes, only LoadError comes out, and soon.

Real tiny files are mutated: bytes overwritten, cut, doubled, numbers replaced by extremes. While
a file is read, the process may not take half a gigabyte more than it has, so a header that
announces a huge tensor must be refused before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infero import loading
from infero.errors import LoadError
from infero.loading import vocabulary
from infero.model import random_model
from tests.conftest import tiny_config
from tests.test_loading import HF, write_folder
from tests.test_loading_gguf import write_gguf

ALLOWANCE_BYTES = 512 << 20
FUZZ = settings(max_examples=300, deadline=5000, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])
MORE = settings(FUZZ, max_examples=150)

# One change of a file: what to do, where (as a share of its length), with which bytes.
EXTREMES = [struct.pack("<Q", n) for n in (0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)]
CHANGES = st.lists(st.tuples(
    st.sampled_from(["put", "put", "put", "cut", "drop", "double"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EXTREMES)),
), min_size=1, max_size=4)


def damage(data: bytes, changes: list[tuple[str, float, bytes]], head: int) -> bytes:
    """Apply the changes, all within the first `head` bytes (where the structure is)."""
    out = bytearray(data)
    for action, share, value in changes:
        at = int(share * min(head, len(out)))
        if action == "put":
            out[at : at + len(value)] = value
        elif action == "cut":
            del out[at:]
        elif action == "drop":
            del out[at : at + len(value)]
        else:
            out[at:at] = out[at : at + 64]
    return bytes(out)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Let the process grow by no more than ALLOWANCE_BYTES (where the system can enforce it)."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS,
                       (pages * resource.getpagesize() + ALLOWANCE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def only_load_error(path: Path) -> None:
    """Load a file: it works or raises LoadError; any other exception fails the test."""
    with little_memory(), contextlib.suppress(LoadError):
        loading.load(path, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def gguf_bytes(place: Path) -> bytes:
    model = random_model(tiny_config(vocab_size=260, num_layers=1, tie_embeddings=True))
    path = write_gguf(place / "whole.gguf", model, fields={"llama.rope.scaling.type": "none"})
    loading.load(path, device="cpu")
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    folder = write_folder(place / "model", random_model(
        tiny_config(vocab_size=260, tie_embeddings=True)))
    loading.load(folder, device="cpu")
    return folder


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", "off")


@FUZZ
@given(changes=CHANGES)
def test_gguf(gguf_bytes: bytes, place: Path, changes: list[tuple[str, float, bytes]]) -> None:
    path = place / "damaged.gguf"
    path.write_bytes(damage(gguf_bytes, changes, head=9000))
    only_load_error(path)


@FUZZ
@given(field=st.integers(0, 400), value=st.sampled_from(EXTREMES))
def test_gguf_lengths_and_counts(gguf_bytes: bytes, place: Path, field: int, value: bytes) -> None:
    """Every eight bytes that look like a small number, one at a time, become an extreme one."""
    small = [i for i in range(8, 9000)
             if 0 < struct.unpack_from("<Q", gguf_bytes, i)[0] < 100_000]
    at = small[field % len(small)]
    path = place / "damaged.gguf"
    path.write_bytes(gguf_bytes[:at] + value + gguf_bytes[at + 8 :])
    only_load_error(path)


@FUZZ
@given(changes=CHANGES)
def test_safetensors(folder: Path, changes: list[tuple[str, float, bytes]]) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(damage(whole, changes, head=4000))
        only_load_error(folder)
    finally:
        path.write_bytes(whole)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(),
              st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3), max_leaves=4)
KEYS = [*HF, "head_dim", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window",
        "layer_types", "eos_token_id", "bos_token_id", "hidden_act", "attention_bias",
        "use_sliding_window", "max_window_layers", "partial_rotary_factor", "quantization_config"]
ROPE = st.fixed_dictionaries({}, optional={
    "rope_type": st.sampled_from(["llama3", "linear", "default", "yarn"]) | JSON,
    "factor": JSON, "low_freq_factor": JSON, "high_freq_factor": JSON, "rope_theta": JSON,
    "original_max_position_embeddings": JSON, "partial_rotary_factor": JSON})


@FUZZ
@given(architecture=st.sampled_from(["llama", "qwen2", "qwen3", "mistral"]),
       changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3), rope=st.none() | ROPE)
def test_config_json(folder: Path, architecture: str, changes: dict[str, object],
                     rope: dict[str, object] | None) -> None:
    raw = HF | {"model_type": architecture} | ({"rope_parameters": rope} if rope else {}) | changes
    (folder / "config.json").write_text(json.dumps(raw))
    try:
        only_load_error(folder)
    finally:
        (folder / "config.json").write_text(json.dumps(HF))


@MORE
@given(changes=CHANGES)
def test_config_json_bytes(folder: Path, changes: list[tuple[str, float, bytes]]) -> None:
    whole = json.dumps(HF).encode()
    (folder / "config.json").write_bytes(damage(whole, changes, head=len(whole)))
    try:
        only_load_error(folder)
    finally:
        (folder / "config.json").write_bytes(whole)


@MORE
@given(changes=CHANGES)
def test_tokenizer_json(place: Path, gguf_bytes: bytes,
                        changes: list[tuple[str, float, bytes]]) -> None:
    home = place / "tokenizer"
    home.mkdir(exist_ok=True)
    tokenizer = loading.load(place / "whole.gguf", device="cpu").tokenizer
    assert tokenizer is not None
    whole = tokenizer.backend.to_str().encode()
    (home / "tokenizer.json").write_bytes(damage(whole, changes, head=len(whole)))
    (home / "tokenizer_config.json").write_bytes(damage(
        b'{"eos_token": {"content": "<|im_end|>"}, "chat_template": [{"name": "default"}]}',
        changes, head=80))
    with contextlib.suppress(LoadError):
        vocabulary.from_folder(home)


@MORE
@given(metadata=st.dictionaries(
    st.sampled_from([f"tokenizer.ggml.{k}" for k in (
        "pre", "tokens", "merges", "token_type", "scores", "bos_token_id", "eos_token_id",
        "unknown_token_id", "add_bos_token", "add_eos_token", "eot_token_id",
        "add_space_prefix")]), JSON, max_size=4), kind=st.sampled_from(["gpt2", "llama"]))
def test_vocabulary_metadata(metadata: dict[str, object], kind: str) -> None:
    whole = {"tokenizer.ggml.model": kind, "tokenizer.ggml.tokens": ["<s>", "a", "b", "ab"],
             "tokenizer.ggml.token_type": [3, 1, 1, 1], "tokenizer.ggml.merges": ["a b"],
             "tokenizer.ggml.scores": [0.0, -1.0, -2.0, -3.0]}
    with contextlib.suppress(LoadError):
        vocabulary.from_gguf(whole | metadata)


def test_the_memory_limit_bites() -> None:
    """The guard of these tests itself: a gigabyte too much raises."""
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_AS is enforced on Linux only")
    with little_memory(), pytest.raises((RuntimeError, MemoryError)):
        torch.empty(2 * ALLOWANCE_BYTES, dtype=torch.uint8)
