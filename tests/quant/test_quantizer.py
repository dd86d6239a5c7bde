"""A model through every method: what goes in, what comes out, and a run that dies at any moment."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from infero import loading
from infero.errors import ConfigError, InferoError, LoadError
from infero.model import Model, random_model
from infero.quant import folder, manifest, quantizer
from infero.quant.fold import MATRICES
from infero.quant.quantizer import METHODS, Settings, quantize_model, quantize_to
from tests.conftest import tiny_config

SHAPE = dict(hidden_size=64, intermediate_size=96, num_heads=4, num_kv_heads=2, head_dim=16)
TEXT = dict(length=32, calibration_tokens=256, steps=4)
ALL = {
    "rtn": Settings("rtn"),
    "rtn per channel": Settings("rtn", group=None),
    "rtn 3 bits with zero points": Settings("rtn", bits=3, group=32, symmetric=False),
    "rtn 8 bits": Settings("rtn", bits=8),
    "int8": Settings("int8"),
    "fp8": Settings("fp8"),
    "gptq": Settings("gptq", group=32, **TEXT),
    "outliers, some": Settings("outliers", threshold=2.0, **TEXT),
    "gptq, head as it is": Settings("gptq", bits=3, group=None, head=False, **TEXT),
} | {name: Settings(name, **TEXT) for name in METHODS if name not in ("rtn", "int8", "fp8", "gptq")}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def model() -> Model:
    return random_model(tiny_config(**SHAPE, tie_embeddings=True), seed=3)


def ids(seed: int = 0, count: int = 400) -> list[int]:
    return torch.randint(0, 211, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def given(settings: Settings) -> dict[str, Any]:
    """The calibration text of a method that wants one."""
    return {"ids": ids()} if quantizer.wants_text(quantizer.quantizer(settings)) else {}


def same(a: Any, b: Any) -> bool:
    """Two weights of one format, or two tensors, are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    one, other = a.tensors(), b.tensors()
    return type(a) is type(b) and a.dtype == b.dtype and len(one) == len(other) and all(
        x.dtype == y.dtype and torch.equal(x.view(torch.uint8), y.view(torch.uint8))
        for x, y in zip(one, other, strict=True))


def check_equal(a: Model, b: Model) -> None:
    assert torch.equal(a.embedding, b.embedding) and same(a.head, b.head)
    assert torch.equal(a.final_norm, b.final_norm) and torch.equal(a.inv_freq, b.inv_freq)
    assert a.config == b.config
    for i, (one, other) in enumerate(zip(a.layers, b.layers, strict=True)):
        for name, value in vars(one).items():
            found = getattr(other, name)
            assert (value is None) == (found is None)
            assert value is None or same(value, found), f"layers.{i}.{name}"


def contents(place: Path) -> dict[str, bytes]:
    """Every file of a folder; of the manifest what does not depend on the clock."""
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    listed = json.loads(files[manifest.NAME])
    files[manifest.NAME] = json.dumps(listed | {"seconds": 0}, sort_keys=True).encode()
    return files


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize("name", ALL)
def test_every_method_in_memory_and_through_a_folder(name: str, model: Model, tmp_path: Path
                                                     ) -> None:
    settings = ALL[name]
    before = {(i, key): t.clone() for i, layer in enumerate(model.layers)
              for key, t in vars(layer).items() if t is not None}
    memory = quantize_model(model, settings, **given(settings))
    written = quantize_to(model, settings, tmp_path / "q", **given(settings))
    assert {path.name for path in tmp_path.iterdir()} <= {"q", "cache"}
    loaded = loading.load(written, dtype="float32", device="cpu")
    check_equal(memory, loaded)
    assert loaded.name == "q"
    for (i, key), t in before.items():
        assert torch.equal(getattr(model.layers[i], key), t), "the model itself was changed"
    for layer in loaded.layers:
        assert not any(isinstance(getattr(layer, key), torch.Tensor) for key in MATRICES)
    assert isinstance(loaded.head, torch.Tensor) != settings.head
    assert (loaded.head is loaded.embedding) != settings.head


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["rtn", "int8", "fp8", "gptq"])
def test_a_folder_serves_activations_of_any_dtype(name: str, dtype: str, model: Model,
                                                  tmp_path: Path) -> None:
    written = quantize_to(model, ALL[name], tmp_path / "q", **given(ALL[name]))
    loaded = loading.load(written, dtype=dtype, device="cpu")
    wide = loading.load(written, dtype="float32", device="cpu")
    assert loaded.dtype == getattr(torch, dtype) == loaded.layers[0].qkv.dequantize().dtype
    for key in MATRICES:
        a, b = getattr(loaded.layers[1], key), getattr(wide.layers[1], key)
        assert torch.allclose(a.dequantize().float(), b.dequantize(), rtol=0.02, atol=1e-3)


def test_a_model_in_bfloat16_stays_in_it(model: Model, tmp_path: Path) -> None:
    half = random_model(model.config, seed=3, dtype=torch.bfloat16)
    memory = quantize_model(half, ALL["gptq"], ids())
    loaded = loading.load(quantize_to(half, ALL["gptq"], tmp_path / "q", ids=ids()),
                          dtype="bfloat16", device="cpu")
    check_equal(memory, loaded)


def test_quantized_layers_feed_the_later_ones(model: Model) -> None:
    """The second layer's Hessian is that of what the rounded first layer sends."""
    from infero.quant import calibration

    settings = ALL["gptq"]
    done = quantize_model(model, settings, ids())
    windows = quantizer.calibration_windows(model, settings, ids())
    work = quantizer.checked(model)
    hidden = calibration.embed(work, windows)
    work.layers[0] = done.layers[0]
    hidden = calibration.advance(work, 0, hidden)
    quantizer.quantize_layer(work, quantizer.quantizer(settings), 1, hidden)
    assert all(same(getattr(work.layers[1], key), getattr(done.layers[1], key))
               for key in MATRICES)
    fresh = quantizer.checked(model)
    true = calibration.advance(fresh, 0, calibration.embed(fresh, windows))
    quantizer.quantize_layer(fresh, quantizer.quantizer(settings), 1, true)
    assert not all(same(getattr(fresh.layers[1], key), getattr(done.layers[1], key))
                   for key in MATRICES)


def test_progress_counts_to_the_end(model: Model, tmp_path: Path) -> None:
    seen: list[quantizer.Step] = []
    quantize_to(model, ALL["rtn"], tmp_path / "q", seen.append)
    counts = [step.done for step in seen[1:]]
    assert counts == sorted(counts) and counts[-1] == 3 and seen[-1].total == 4
    assert "layer 2 of 3" in [step.what for step in seen]


# ---------------------------------------------------------------- a run that dies


class Killed(BaseException):
    """As if the power had gone: no `except Exception` sees it."""


def interrupted(monkeypatch: pytest.MonkeyPatch, nth: int, when: str) -> Callable[[], int]:
    """The nth write, or the renaming of a folder after all writes, does not come back."""
    calls, write, rename = [0], manifest.write, os.rename

    def die_at(action: Callable[..., Any], *args: Any) -> None:
        calls[0] += 1
        if calls[0] == nth and when == "before":
            raise Killed
        if calls[0] == nth and when == "half":
            path = args[0]
            if path.is_dir():
                raise Killed
            path.with_name(f".{path.name}.1-dead").write_bytes(b"\0" * 100)
            raise Killed
        action(*args)
        if calls[0] == nth:
            raise Killed

    monkeypatch.setattr(manifest, "write", lambda path, content: die_at(write, path, content))
    monkeypatch.setattr(folder.os, "rename", lambda a, b: die_at(rename, a, b))
    return lambda: calls[0]


@pytest.mark.parametrize(("method", "when"), [
    ("gptq", "before"), ("gptq", "half"), ("gptq", "after"), ("rtn", "half")])
def test_whenever_it_dies_it_goes_on_and_the_result_is_the_same(
        method: str, when: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ALL[method]
    whole = quantize_to(model, settings, tmp_path / "whole", **given(settings))
    wanted, deaths = contents(whole), 0
    for nth in range(1, 100):
        goal = tmp_path / f"q{nth}"
        with monkeypatch.context() as patch:
            count = interrupted(patch, nth, when)
            try:
                quantize_to(model, settings, goal, **given(settings))
            except Killed:
                deaths += 1
            else:
                assert count() < nth
                break
        if goal.exists():  # the last rename was done before it died
            assert count() == nth and when == "after"
            assert not goal.with_name(goal.name + ".partial").exists()
        else:
            for place in tmp_path.glob(f"q{nth}*"):
                if (place / manifest.NAME).exists() and manifest.read(place).complete:
                    continue  # all that lacked was the folder's own name
                with pytest.raises((LoadError, ConfigError)):
                    loading.load(place, dtype="float32", device="cpu")
        seen: list[quantizer.Step] = []
        quantize_to(model, settings, goal, seen.append, **given(settings))
        assert contents(goal) == wanted
        assert [path.name for path in tmp_path.glob(f"q{nth}*")] == [goal.name]
        again = sum(step.what.endswith("of 3") for step in seen)
        listed = (nth - 2 - (when != "after")) // 2  # after journal and decision, two a layer
        assert again == 3 - max(0, min(3, listed))
    assert deaths >= 10


def test_it_survives_a_real_kill(model: Model, tmp_path: Path) -> None:
    """SIGKILL from outside, in the middle of a write of the second layer, and again in the next."""
    settings = ALL["gptq"]
    wanted = contents(quantize_to(model, settings, tmp_path / "whole", ids=ids()))
    program = """
import os, signal, sys
import torch
from pathlib import Path
from infero.loading import cache
from infero.quant import manifest
from tests.quant.test_quantizer import SHAPE, ALL, ids
from infero.model import random_model
from infero.quant.quantizer import quantize_to
from tests.conftest import tiny_config

torch.set_num_threads(1)
real, victim = cache.write_safetensors, sys.argv[2]

def half(file, tensors):
    real(file, tensors)
    if victim in str(file.name):
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

cache.write_safetensors = half
model = random_model(tiny_config(**SHAPE, tie_embeddings=True), seed=3)
quantize_to(model, ALL["gptq"], sys.argv[1], ids=ids())
"""
    goal = tmp_path / "q"
    for victim in ("layer-001", "outer"):
        done = subprocess.run([sys.executable, "-c", program, str(goal), victim], timeout=120,
                              capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not goal.exists()
        drafts = list((tmp_path / "q.partial").glob(".*"))
        assert len(drafts) == 1 and victim in drafts[0].name
    quantize_to(model, settings, goal, ids=ids())
    assert contents(goal) == wanted


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_disk_that_fills_up(nth: int, model: Model, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    calls, write = [0], manifest.write

    def full(path: Path, content: Any) -> None:
        calls[0] += 1
        if calls[0] >= nth:
            def fails(file: Any) -> None:
                file.write(b"some bytes still fit")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

            content = fails
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        with pytest.raises(InferoError, match=r"disk is full.*goes on where it stopped"):
            quantize_to(model, ALL["rtn"], tmp_path / "q")
    assert not (tmp_path / "q").exists() and not list(tmp_path.glob("*/.*"))
    quantize_to(model, ALL["rtn"], tmp_path / "q")
    whole = quantize_to(model, ALL["rtn"], tmp_path / "whole")
    assert contents(tmp_path / "q") == contents(whole)


def test_too_little_space_is_said_before_anything_is_done(model: Model, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    usage = dataclasses.make_dataclass("usage", ["free"])(free=1000)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InferoError, match=r"0 MB free.*needs about 1 MB: free some space"):
        quantize_to(model, ALL["rtn"], tmp_path / "q")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL)
def test_the_estimate_is_enough_and_not_far_too_much(name: str, model: Model, tmp_path: Path
                                                     ) -> None:
    written = quantize_to(model, ALL[name], tmp_path / "q", **given(ALL[name]))
    size = sum(path.stat().st_size for path in written.iterdir())
    estimate = quantizer.estimated_bytes(model.config, ALL[name])
    assert size <= estimate <= size * 1.2 + (2 << 20)


def test_a_damaged_layer_is_made_again(model: Model, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ALL["gptq"]
    wanted = contents(quantize_to(model, settings, tmp_path / "whole", ids=ids()))
    with monkeypatch.context() as patch:
        interrupted(patch, 9, "before")
        with pytest.raises(Killed):
            quantize_to(model, settings, tmp_path / "q", ids=ids())
    victim = tmp_path / "q.partial" / "layer-001.safetensors"
    victim.write_bytes(victim.read_bytes()[:-8] + b"\1" * 8)
    (tmp_path / "q.partial" / "layer-000.safetensors").unlink()
    quantize_to(model, settings, tmp_path / "q", ids=ids())
    assert contents(tmp_path / "q") == wanted


# ---------------------------------------------------------------- --force, --resume


def begun(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `q` that was left after two layers."""
    with monkeypatch.context() as patch:
        interrupted(patch, 7, "before")
        with pytest.raises(Killed):
            quantize_to(model, ALL["rtn"], tmp_path / "q")
    return tmp_path / "q.partial"


def test_other_settings_do_not_go_on(model: Model, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    partial = begun(model, tmp_path, monkeypatch)
    other = Settings("rtn", bits=3)
    with pytest.raises(InferoError, match=r"begun with settings bits 4, now 3.*--no-resume"):
        quantize_to(model, other, tmp_path / "q")
    with pytest.raises(InferoError, match="begun with base sha256"):
        quantize_to(random_model(model.config, seed=9), ALL["rtn"], tmp_path / "q")
    assert (partial / "layer-000.safetensors").exists(), "nothing was lost by asking"
    made = quantize_to(model, other, tmp_path / "q", resume=False)
    fresh = quantize_to(model, other, tmp_path / "fresh")
    assert contents(made) == contents(fresh)


def test_a_model_that_is_there_is_replaced_only_by_force(model: Model, tmp_path: Path) -> None:
    goal = quantize_to(model, ALL["rtn"], tmp_path / "q")
    first = contents(goal)
    seen: list[quantizer.Step] = []
    assert quantize_to(model, ALL["rtn"], goal, seen.append) == goal and len(seen) == 1
    with pytest.raises(InferoError, match=r"holds another quantized model.*--force"):
        quantize_to(model, ALL["int8"], goal)
    assert contents(goal) == first
    quantize_to(model, ALL["int8"], goal, force=True)
    assert manifest.read(goal).request["method"] == "int8"
    assert [path.name for path in tmp_path.glob("q*")] == ["q"]


@pytest.mark.parametrize("moment", ["first rename", "second rename"])
def test_dying_while_a_model_is_replaced_loses_neither(
        moment: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = quantize_to(model, ALL["rtn"], tmp_path / "q")

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(folder.os, "replace" if moment == "first rename" else "rename", die)
        if moment == "first rename":  # the files' own renames go through cache.py's os, the same
            patch.undo()
            patch.setattr(folder, "finish", die)
        with pytest.raises(Killed):
            quantize_to(model, ALL["int8"], goal, force=True)
    if moment == "first rename":
        assert manifest.read(goal).request["method"] == "rtn"
    else:
        assert manifest.read(tmp_path / "q.old").complete and not goal.exists()
    quantize_to(model, ALL["int8"], goal, force=True)
    assert manifest.read(goal).request["method"] == "int8"
    assert [path.name for path in tmp_path.glob("q*")] == ["q"]


def test_two_at_once(model: Model, tmp_path: Path) -> None:
    def meanwhile(step: quantizer.Step) -> None:
        if step.what == "layer 2 of 3":
            with pytest.raises(InferoError, match="Another process is writing"):
                quantize_to(model, ALL["rtn"], tmp_path / "q")

    quantize_to(model, ALL["rtn"], tmp_path / "q", meanwhile)


@pytest.mark.parametrize("force", [False, True])
def test_nobody_elses_files_are_touched(force: bool, model: Model, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("years of work")
    with pytest.raises(InferoError, match=r"other files and no infero\.json"):
        quantize_to(model, ALL["rtn"], mine, force=force)
    (tmp_path / "q.partial").mkdir()
    (tmp_path / "q.partial" / "notes").write_text("mine")
    with pytest.raises(InferoError, match="not infero's, such as notes"):
        quantize_to(model, ALL["rtn"], tmp_path / "q", force=force, resume=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InferoError, match="is a file"):
        quantize_to(model, ALL["rtn"], tmp_path / "file", force=force)
    with pytest.raises(InferoError, match=r"no folder .*nowhere"):
        quantize_to(model, ALL["rtn"], tmp_path / "nowhere" / "q", force=force)
    assert (mine / "chapter.tex").exists() and (tmp_path / "q.partial" / "notes").exists()


def test_an_empty_folder_will_do(model: Model, tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    assert loading.load(quantize_to(model, ALL["rtn"], tmp_path / "q")).name == "q"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(("fields", "message"), [
    ({"method": "magic"}, r"no method 'magic'; there are rtn, gptq"),
    ({"method": "rtn", "bits": 5}, r"bits is 5; rtn has 2, 3, 4, 8"),
    ({"method": "int8", "bits": 4}, r"bits is 4; int8 has 8"),
    ({"method": "fp8", "group": 64}, r"groups of 64 have no kernel.*--group 0"),
    ({"method": "rtn", "bits": 8, "symmetric": False}, r"zero points have no kernel"),
    ({"method": "gptq", "group": 48}, r"group of 48 .* slices of 32.*multiple of 32"),
    ({"method": "gptq", "group": -64}, r"multiple of 32"),
    ({"method": "gptq", "damping": 0.0}, r"damping is 0.0; it must be above 0"),
    ({"method": "gptq", "length": 0}, r"length is 0"),
    ({"method": "gptq", "calibration_tokens": 100}, r"calibration_tokens is 100; .*window of 512"),
    ({"method": "gptq", "budget_bits": 3.0}, r"budget_bits is 3, but gptq"),
    ({"method": "rtn", "alpha": 1.5}, r"alpha is 1.5; it must be 0 to 1"),
])
def test_settings_that_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**fields)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layers.1.down", "layers.2.input_norm", "embedding"])
def test_a_number_that_is_none_names_its_tensor(name: str, value: float, model: Model,
                                                tmp_path: Path) -> None:
    if name == "embedding":
        model.embedding[3, 5] = value
    else:
        _, index, key = name.split(".")
        getattr(model.layers[int(index)], key).view(-1)[7] = value
    with pytest.raises(ConfigError, match=rf"{name} holds 1 NaN or infinite numbers"):
        quantize_to(model, ALL["int8"], tmp_path / "q")
    assert list(tmp_path.glob("q*")) == []


def test_what_is_quantized_is_not_quantized_again(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layers\.0\.qkv .*quantized already \(Int4Weight\)"):
        quantize_model(quantize_model(model, ALL["rtn"]), ALL["int8"])
    made = quantize_to(model, ALL["rtn"], tmp_path / "q")
    with pytest.raises(ConfigError, match=r"q is quantized already \(by rtn.*full precision"):
        quantize_to(made, ALL["int8"], tmp_path / "again")
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_to(quantize_model(model, ALL["rtn"]), ALL["int8"], tmp_path / "again")


def test_calibration_text_that_will_not_do(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 100 tokens; 8 windows of 32 need 256"):
        quantize_to(model, ALL["gptq"], tmp_path / "q", ids=ids(count=100))
    with pytest.raises(ConfigError, match=r"the token 500, .*vocabulary has 211"):
        quantize_to(model, ALL["gptq"], tmp_path / "q", ids=[500] * 400)
    with pytest.raises(ConfigError, match=r"no tokenizer.*rtn, int8, fp8"):
        quantize_to(model, ALL["gptq"], tmp_path / "q")
    with pytest.raises(ConfigError, match=r"length is 512, .*context holds 128 tokens"):
        quantize_to(model, Settings("gptq"), tmp_path / "q", ids=ids(count=30_000))
    with pytest.raises(ConfigError, match="rtn looks at no text"):
        quantize_to(model, ALL["rtn"], tmp_path / "q", ids=ids())
    assert list(tmp_path.glob("q*")) == []


def test_another_text_is_another_request(model: Model, tmp_path: Path) -> None:
    quantize_to(model, ALL["gptq"], tmp_path / "q", ids=ids(1))
    with pytest.raises(InferoError, match="holds another quantized model"):
        quantize_to(model, ALL["gptq"], tmp_path / "q", ids=ids(2))
