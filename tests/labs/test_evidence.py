"""Predict, measure, reconcile: what is kept, what is replayed, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from infero import results
from infero.lab import evidence, folder, pieces, session
from tests.labs.conftest import Shell

RECORDED = {
    "schema": 1,
    "name": "limits",
    "device": {"slug": "h100", "kind": "cuda", "name": "NVIDIA H100", "driver": "1",
               "memory_bytes": 1, "cores": 1},
    "software": {"python": "3", "torch": "2", "triton": None, "infero": "0"},
    "commit": "abc",
    "date": "2026-01-31T10:00:00+00:00",
    "command": "python -m benchmarks.limits",
    "values": {"read": {"value": 2.5e12, "unit": "byte/s", "n": 9, "spread": 0.01, "note": ""}},
    "tables": {},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A results folder with one number from a GPU and none from this machine."""
    monkeypatch.setenv("INFERO_RESULTS", str(tmp_path / "results"))
    path = tmp_path / "results" / "h100" / "limits.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(RECORDED))
    monkeypatch.setattr(evidence, "_has_gpu", lambda: False)


def test_result() -> None:
    found = evidence.result("gpu/limits/read")
    assert (found.value, found.unit) == (2.5e12, "byte/s")
    assert found.text.replace("\N{NO-BREAK SPACE}", " ") == "2,500 GB/s"
    assert found.label == "NVIDIA H100, 2026-01-31"
    with pytest.raises(results.ResultMissing, match=r"python -m benchmarks\.limits"):
        evidence.result("gpu/limits/reed")


def test_a_guess_is_kept_and_shown(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = evidence.predict("decode", 0.02, unit="s", formula=lambda: 99)
    assert (made.value, made.source) == (0.02, "you")
    assert "20" in capsys.readouterr().out
    kept = json.loads((mine / "measurements.json").read_text())
    assert kept["predictions"]["decode"][0]["value"] == 0.02


@pytest.mark.parametrize("guess", [None, float("nan"), float("inf")])
def test_no_guess_is_asked_for(guess: float | None, capsys: pytest.CaptureFixture[str]) -> None:
    made = evidence.predict("decode", guess, unit="s")
    assert made.value is None
    assert "no prediction yet" in capsys.readouterr().out
    evidence.reconcile(made, evidence.measure("decode", lambda: 0.03, unit="s"))
    assert "no prediction to compare" in capsys.readouterr().out


def test_a_guess_that_is_no_number() -> None:
    with pytest.raises(TypeError, match="a prediction is a number in s"):
        evidence.predict("decode", "fast", unit="s")  # type: ignore[arg-type]


def test_the_formula_in_solutions_mode(set_mode: Callable[[str], None]) -> None:
    set_mode("solutions")
    made = evidence.predict("decode", None, unit="s", formula=lambda: 0.05)
    assert (made.value, made.source) == (0.05, "formula")


def test_a_measurement(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = evidence.measure("decode", lambda: [3.0, 1.0, 2.0], unit="s")
    assert (made.value, made.samples, made.replayed) == (2.0, 3, False)
    said = capsys.readouterr().out
    assert "Median of 3" in said
    assert "Replayed" not in said
    evidence.measure("decode", lambda: 5, unit="s")
    kept = json.loads((mine / "measurements.json").read_text())["measurements"]["decode"]
    assert [entry["value"] for entry in kept] == [2.0, 5.0]


@pytest.mark.parametrize("value", [float("nan"), [], [1.0, float("inf")]])
def test_a_measurement_that_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        evidence.measure("decode", lambda: value)


def test_where() -> None:
    with pytest.raises(ValueError, match="'cpu' or 'gpu'"):
        evidence.measure("decode", lambda: 1.0, where="tpu")


def test_a_replay_says_so(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    def never() -> float:
        raise AssertionError("there is no GPU to run on")

    made = evidence.measure("gpu/limits/read", never, unit="byte/s", where="gpu")
    assert made.replayed
    assert made.label == "replayed from NVIDIA H100, 2026-01-31"
    said = capsys.readouterr().out
    assert "Replayed" in said
    assert "NVIDIA H100 on 2026-01-31; nothing was measured just now" in said
    assert not mine.exists(), "a replay is not the learner's own measurement"
    evidence.reconcile(evidence.predict("x", 2e12, unit="byte/s"), made)
    assert "Not measured here: NVIDIA H100, 2026-01-31." in capsys.readouterr().out


def test_a_gpu_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_has_gpu", lambda: True)
    made = evidence.measure("gpu/limits/read", lambda: 7.0, unit="byte/s", where="gpu")
    assert (made.value, made.replayed) == (7.0, False)


@pytest.mark.parametrize(("guess", "measured", "words"), [
    (1.0, 1.1, "Measured / predicted = 1.1: they agree within a quarter"),
    (1.0, 1.9, "Measured / predicted = 1.9: within a factor of two"),
    (1.0, 20.0, "Measured / predicted = 20: find the term that is missing"),
    (0.0, 2.0, "measured minus predicted is 2"),
    (-1.0, 2.0, "measured minus predicted is 3"),
])  # fmt: skip
def test_reconcile(
    guess: float, measured: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = evidence.predict("a", guess, unit="s")
    evidence.reconcile(made, evidence.measure("a", lambda: measured, unit="s"))
    assert words in capsys.readouterr().out


def test_reconcile_several(capsys: pytest.CaptureFixture[str]) -> None:
    guesses = [evidence.predict(key, 1.0, unit="s") for key in ("lab/a_b", "lab/c")]
    seen = [evidence.measure(key, lambda: 2.0, unit="s") for key in ("a", "c")]
    evidence.reconcile(guesses, seen)
    said = capsys.readouterr().out
    assert "a b: predicted" in said
    assert "c: predicted" in said
    with pytest.raises(ValueError, match="2 predictions"):
        evidence.reconcile(guesses, seen[:1])


def test_the_plot_is_drawn_and_closed() -> None:
    import matplotlib.pyplot as plt

    evidence.reconcile(
        evidence.predict("a", 1.0, unit="s"), evidence.measure("a", lambda: 2.0, unit="s")
    )
    assert plt.get_fignums() == []


def test_a_notebook_shows_the_plot(shell: Shell) -> None:
    shell("from infero import lab\np = lab.predict('a', 1.0)\nm = lab.measure('a', lambda: 2.0)")
    said = shell("lab.reconcile(p, m)")
    assert shell.error is None
    assert "Measured / predicted = 2" in said


def test_the_budget(tmp_path: Path) -> None:
    assert "not measured yet" in session.budget_words("01")
    values = {
        "lab01_time": {"value": 12.0, "unit": "s", "n": 1, "spread": None, "note": ""},
        "lab01_memory": {"value": 1.5e9, "unit": "byte", "n": 1, "spread": None, "note": ""},
    }
    device = RECORDED["device"] | {"slug": "some-cpu", "kind": "cpu", "name": "Some CPU"}  # type: ignore[operator]
    path = tmp_path / "results" / "some-cpu" / "labs.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RECORDED | {"name": "labs", "values": values, "device": device}))
    words = session.budget_words("01").replace("\N{NO-BREAK SPACE}", " ")
    assert "12 s and 1.5 GB of memory (Some CPU, 2026-01-31)" in words
    assert "not measured yet" in session.budget_words("02")


def test_only_the_last_twenty_are_kept() -> None:
    for i in range(25):
        evidence.measure("a", lambda i=i: float(i))  # type: ignore[misc]
    kept = folder.read_json("measurements.json")["measurements"]["a"]
    assert [entry["value"] for entry in kept] == [float(i) for i in range(5, 25)]


def test_every_lab_has_its_minutes() -> None:
    assert all(45 <= row.minutes <= 120 for row in pieces.LABS)
