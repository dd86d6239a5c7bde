"""`infero quantize`: what the command prints, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from infero import cli, cli_quantize
from infero.quant import manifest
from infero.quant.quantizer import Step
from tests.test_loading import write_folder
from tests.test_loading_quantized import CONFIG, SHAPE

runner = CliRunner()
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small model in Hugging Face's layout, with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from infero.model import random_model
    from tests.conftest import tiny_config

    model = random_model(tiny_config(**SHAPE), seed=4)
    folder = write_folder(tmp_path / "model", model, **CONFIG)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    return folder


def invoke(*args: object) -> Any:
    return runner.invoke(cli.app, ["quantize", *map(str, args)], catch_exceptions=True)


def shell(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "infero.cli", "quantize", *map(str, args)],
                          text=True, timeout=120, capture_output=True, cwd=ROOT,
                          env=os.environ | {"COLUMNS": "120", "OMP_NUM_THREADS": "1"})


def test_it_says_what_it_made_and_what_next(source: Path, tmp_path: Path) -> None:
    result = invoke(source, "--method", "rtn", "--group", 32, "-o", tmp_path / "q")
    assert result.exit_code == 0, result.output
    assert "model by rtn, 4 bits, groups of 32, symmetric" in result.output
    for words in ("times smaller", "bits a weight", "head 8 bits", "infero eval", "infero chat"):
        assert words in result.output
    assert str(tmp_path / "q") in result.output and "layer 3 of 3" not in result.output
    assert "1/3 layer 2 of 2" in result.output
    answer = runner.invoke(cli.app, ["generate", "Hello", "-n", "4", "--model",
                                     str(tmp_path / "q"), "--dtype", "float32"])
    assert answer.exit_code == 0, answer.output


def test_options_reach_the_manifest(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 40)
    result = invoke(source, "--bits", 3, "--group", 0, "--asymmetric", "--no-head",
                    "--no-act-order", "--damping", 0.02, "--calibration", text,
                    "--calibration-tokens", 256,
                    "--length", 64, "--seed", 5, "--ranges", "mse", "-o", tmp_path / "q")
    assert result.exit_code == 0, result.output
    request = manifest.read(tmp_path / "q").request
    assert request["method"] == "gptq" and request["calibration"]["source"] == "text.txt"
    wanted = dict(bits=3, group=None, symmetric=False, head=False, act_order=False, damping=0.02,
                  calibration_tokens=256, length=64, seed=5, ranges="mse")
    assert wanted.items() <= request["settings"].items()
    assert "one scale a row, with zero points" in result.output and "head 16 bits" in result.output


def test_again_is_quick_and_another_wants_force(source: Path, tmp_path: Path) -> None:
    goal = tmp_path / "q"
    assert invoke(source, "--method", "int8", "-o", goal).exit_code == 0
    again = invoke(source, "--method", "int8", "-o", goal)
    assert again.exit_code == 0 and "layer 1" not in again.output
    other = invoke(source, "--method", "fp8", "-o", goal)
    assert "--force" in str(other.exception)
    assert invoke(source, "--method", "fp8", "-o", goal, "--force").exit_code == 0
    assert manifest.read(goal).request["method"] == "fp8"


@pytest.mark.parametrize(("options", "message"), [
    (["--method", "magic"], "no method 'magic'"),
    (["--bits", "7"], "bits is 7"),
    (["--method", "int8", "--bits", "4"], "bits is 4; int8 has 8"),
    (["--group", "100"], "multiple of 32"),
    (["--method", "rtn", "--ranges", "hessian"], "ranges is 'hessian'; rtn has minmax"),
    (["--calibration", "nowhere.txt"], "nowhere.txt: No such file"),
    (["--calibration-tokens", "9999999", "--length", "128"], "Give a longer text"),
    (["--method", "rtn", "--calibration", "README.md"], "rtn looks at no text"),
    (["--dtype", "int3"], "dtype 'int3' is unknown"),
])
def test_bad_options_are_one_message(options: list[str], message: str, source: Path,
                                     tmp_path: Path) -> None:
    result = invoke(source, "-o", tmp_path / "q", *options)
    assert result.exit_code != 0 and message in str(result.exception).replace("\n", " ")
    assert not list(tmp_path.glob("q*"))


def test_an_error_is_printed_without_a_traceback(tmp_path: Path) -> None:
    result = shell("./no/such/model", "-o", tmp_path / "q")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "no/such/model" in result.stderr and not list(tmp_path.glob("q*"))
    assert "Missing option" in shell("x").stderr


def test_killed_and_started_again(source: Path, tmp_path: Path) -> None:
    """SIGKILL as soon as a layer is there; the same command then finishes it."""
    arguments = [source, "--group", 32, "--calibration-tokens", 8192, "--length", 128,
                 "--damping", 0.05]
    whole = shell(*arguments, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    goal, partial = tmp_path / "q", tmp_path / "q.partial"
    process = subprocess.Popen(
        [sys.executable, "-m", "infero.cli", "quantize", *map(str, arguments), "-o", str(goal)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 100
    while not (partial / "layer-000.safetensors").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    result = shell(*arguments, "-o", goal)
    assert result.returncode == 0, result.stderr
    assert not partial.exists()
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert (goal / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    screen = Console(file=StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(cli_quantize, "err", screen)
    with cli_quantize._bar() as show:
        show(Step(0, 1, "reading the model"))
        for done in range(4):
            show(Step(done, 5, f"layer {done + 1} of 4"))
        time.sleep(0.2)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "layer 4 of 4" in shown and "elapsed" in shown and "remaining" in shown


def test_seconds_and_minutes_are_read_well() -> None:
    assert cli_quantize._duration(3.21) == "3.2 s" and cli_quantize._duration(125) == "2 min 5 s"


def test_help_lists_the_options() -> None:
    result = runner.invoke(cli.app, ["quantize", "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    for option in ("--method", "--bits", "--group", "--calibration", "--force", "--no-resume"):
        assert option in result.output


def test_summary_of_a_model_without_a_file() -> None:
    facts = json.loads(json.dumps({
        "base": {"name": "", "sha256": ""}, "method": "int8",
        "settings": {"bits": 8, "group": None, "symmetric": True, "head": True}}))
    listed = SimpleNamespace(request=facts, seconds=1.0,
                             sizes={"parameters": 1e6, "bytes": 1e6, "bits_a_weight": 8.1})
    text = cli_quantize.summary(Path("q"), listed)  # type: ignore[arg-type]
    assert "2.0 times smaller" in text and "its own file" not in text
