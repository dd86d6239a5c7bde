"""`infero eval`: numbers, JSON, references, questions, and errors in words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

import infero
from infero import cli, cli_eval, evaluate
from infero.errors import InferoError, ParameterError
from infero.model import Model, random_model
from infero.multiple_choice import Choices
from tests.conftest import tiny_config

runner = CliRunner()


class Letters:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return [b % 211 for b in text.encode()]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, Model]:
    """Tiny models behind `infero.load`, by name."""
    config = tiny_config(hidden_size=64, num_heads=4, head_dim=16)
    known: dict[str | None, Model] = {}
    for seed, name in enumerate((None, "other")):
        known[name] = random_model(config, seed=seed)
        known[name].tokenizer, known[name].name = Letters(), name or "base"  # type: ignore
    monkeypatch.setattr(infero, "load", lambda source, **_: known[source])
    return known


def run(*args: str) -> str:
    result = runner.invoke(cli.app, ["eval", *args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*args: str) -> dict:
    return json.loads(run("--json", "-n", "100", "-l", "32", *args))


def test_perplexity_of_the_shipped_text(models: dict[str | None, Model]) -> None:
    found = as_json()
    ids = Letters().encode(evaluate.text())[:100]
    want = evaluate.evaluate(models[None], ids, length=32)
    assert found["tokens"] == 99 and found["perplexity"] == pytest.approx(want.perplexity)
    assert (found["model"], found["dtype"], found["device"]) == ("base", "float32", "cpu")
    assert found["reference"] is None and "kl" not in found and "accuracy" not in found


def test_beside_a_reference(models: dict[str | None, Model]) -> None:
    found = as_json("other", "--reference", "other", "--batch", "1")
    assert (found["kl"], found["top1"], found["perplexity_ratio"]) == (0, 1, 1)
    models["base"] = models[None]
    found = as_json("other", "-r", "base")
    assert found["kl"] > 0 and found["reference"] == "base"
    assert found["perplexity_ratio"] == pytest.approx(math.exp(found["nll_change"]))


@pytest.mark.usefixtures("models")
def test_quantized_beside_itself() -> None:
    found = as_json("--quantization", "int8")
    assert found["quantization"] == "int8" and found["reference"] == "base"
    assert 0 < found["kl"] < 0.01 and found["top1"] > 0.8
    assert as_json("--quantization", "stored")["kl"] == 0  # nothing was quantized in the file


@pytest.mark.usefixtures("models")
def test_the_table_for_people(tmp_path: Path) -> None:
    words = run("-n", "100", "-l", "32", "--quantization", "int8")
    for part in ("perplexity", "KL to the reference", "same first choice", "±", "base, int8"):
        assert part in words
    own = tmp_path / "own.txt"
    own.write_text("A text of one's own, which is short. " * 4)
    assert "own.txt" in run("--text", str(own), "-n", "0", "-l", "32")


def test_questions(models: dict[str | None, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"base": Choices([0, 0, 1, 2], [0.1] * 4), "other": Choices([0, 0, 1, 1], [0.2] * 4)}
    monkeypatch.setattr("infero.multiple_choice.answer", lambda model, **_: answers[model.name])
    found = as_json("other", "--task", "mcq")
    assert found["accuracy"] == 0.5 and found["questions"] == 4 and "perplexity" not in found
    models["base"] = models[None]
    found = as_json("other", "--task", "all", "-r", "base")
    assert found["same_answers"] == 0.75 and found["reference_accuracy"] == 0.5
    assert "perplexity" in found
    assert "chance 25 %" in run("other", "--task", "mcq", "-r", "base")


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("args", "words"), [
    (("--task", "sudoku"), "known: text, mcq, all"),
    (("-n", "1"), "at least 2"),
    (("-n", "-5"), "tokens is -5"),
    (("-n", "10000000"), "10000000 tokens were asked for"),
    (("-l", "4096"), "the model takes 1 to 128"),
    (("-l", "8", "-b", "0"), "batch is 0"),
    (("--quantization", "int3"), "known: int8, int4, fp8, w8a8, stored"),
])
def test_mistakes_are_one_message(args: tuple[str, ...], words: str) -> None:
    with pytest.raises(InferoError, match=words):
        run(*args)


@pytest.mark.usefixtures("models")
def test_texts_that_cannot_be_scored(tmp_path: Path) -> None:
    short, latin = tmp_path / "short.txt", tmp_path / "latin.txt"
    short.write_text("Too short.")
    latin.write_bytes(b"caf\xe9 " * 100)
    with pytest.raises(ParameterError, match="has 10 tokens"):
        run("--text", str(short))
    with pytest.raises(ParameterError, match="not UTF-8"):
        run("--text", str(latin))
    with pytest.raises(FileNotFoundError):  # which the command's main() puts into words
        run("--text", str(tmp_path / "none.txt"))


def test_a_model_without_a_tokenizer(models: dict[str | None, Model]) -> None:
    models[None].tokenizer = None
    for more in ((), ("--task", "mcq")):
        with pytest.raises(InferoError, match="no tokenizer"):
            run(*more)


def test_digits_follow_the_error() -> None:
    assert cli_eval._with_error(12.34567, 0.0456) == ("12.346", "± 0.046")
    assert cli_eval._with_error(1234.5, 320.0, " %") == ("1,234", "± 320 %")
    assert cli_eval._with_error(1.23456, math.nan, " nats") == ("1.235", "nats")
