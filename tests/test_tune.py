"""Tuned configurations: the tables, who is asked first, and how candidates are judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from infero import cli, tune
from infero.errors import ParameterError

runner = CliRunner()


@pytest.fixture(autouse=True)
def _own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("INFERO_CONFIG", str(tmp_path / "mine"))
    monkeypatch.setattr(tune, "package_file", lambda: tmp_path / "package" / "tuned.json")
    tune.forget()
    yield
    tune.forget()


def test_the_user_s_table_is_asked_before_the_package_s() -> None:
    assert tune.best("matmul", "small", "sm_90") is None
    tune.write(tune.package_file(), {"sm_90": {"matmul": {"small": {"rows": 4}, "big": {"rows": 8}},
                                               "norm": {"any": {"warps": 4}}}})
    assert tune.best("matmul", "small", "sm_90") == {"rows": 4}
    mine = tune.user_file()
    assert mine is not None
    tune.write(mine, {"sm_90": {"matmul": {"small": {"rows": 16}}}})
    assert tune.best("matmul", "small", "sm_90") == {"rows": 16}
    assert tune.best("matmul", "big", "sm_90") == {"rows": 8}
    assert tune.best("norm", "any", "sm_90") == {"warps": 4}
    assert tune.best("norm", "any", "sm_80") is None
    assert tune.best("norm", "any") is None or torch.cuda.is_available()  # this machine's own rows


def test_writing_keeps_other_rows() -> None:
    path = tune.package_file()
    tune.write(path, {"sm_90": {"a": {"x": {"n": 1}}}})
    tune.write(path, {"sm_90": {"a": {"y": {"n": 2}}}, "sm_80": {"b": {"x": {"n": 3}}}})
    tune.write(path, {"sm_90": {"a": {"x": {"n": 4}}}})
    assert tune.read(path) == {"sm_90": {"a": {"x": {"n": 4}, "y": {"n": 2}}},
                               "sm_80": {"b": {"x": {"n": 3}}}}
    assert json.loads(path.read_text()) == tune.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sm_90": 3}', '{"sm_90": {"a": [1]}}',
                                  '{"sm_90": {"a": {"x": 5}}}', "null", '"x"'])
def test_a_damaged_table_is_an_empty_one(text: str) -> None:
    path = tune.user_file()
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert tune.read(path) == {} and tune.best("a", "x", "sm_90") is None


def test_the_package_s_own_table_is_sound() -> None:
    path = Path(tune.__file__).parent / "kernels" / "tuned.json"
    if path.exists():
        table = tune.read(path)
        assert table, f"{path} is damaged"
        assert all(arch.startswith("sm_") for arch in table)


# ---------------------------------------------------------------- measuring


def one(results: dict[str, float | Exception]) -> tune.Tunable:
    """A kernel whose candidates give these numbers, or fail."""
    def prepare(device: torch.device) -> Callable[[tune.Config], Callable[[], torch.Tensor]]:
        def use(config: tune.Config) -> Callable[[], torch.Tensor]:
            value = results[config["name"]]

            def run() -> torch.Tensor:
                if isinstance(value, Exception):
                    raise value
                return torch.full((3,), value, device=device)

            run.name = config["name"]  # type: ignore[attr-defined]
            return run

        return use

    return tune.Tunable("fake", "any", [{"name": name} for name in results], prepare, 1e6)


def timed_as(seconds: dict[str, float]) -> Callable[..., float]:
    return lambda run, device: seconds[run.name]


def test_the_fastest_right_candidate_wins() -> None:
    tunable = one({"first": 1.0, "slow": 1.0, "fast": 1.001, "wrong": 2.0,
                   "large": RuntimeError("out of resource: shared memory"), "nan": float("nan")})
    times = {"first": 4e-6, "slow": 5e-6, "fast": 2e-6, "wrong": 1e-9, "nan": 1e-9}
    found = tune.tune(tunable, "cpu", timed=timed_as(times))
    assert found.best is not None and found.best.config == {"name": "fast"}
    assert found.gain == pytest.approx(2.0)
    problems = {t.config["name"]: t.problem for t in found.trials if t.problem}
    assert set(problems) == {"wrong", "large", "nan"}
    assert "differs by" in problems["wrong"] and "shared memory" in problems["large"]
    assert tune.table_of([found], "sm_90") == {"sm_90": {"fake": {"any": {"name": "fast"}}}}


def test_a_kernel_of_which_no_candidate_runs_is_left_out() -> None:
    found = tune.tune(one({"a": ValueError("no"), "b": ValueError("no")}), "cpu",
                      timed=timed_as({}))
    assert found.best is None and found.gain == 1.0
    assert tune.table_of([found], "sm_90") == {"sm_90": {}}


def test_what_the_kernels_offer_is_sound() -> None:
    """Names and shapes are unique, the first candidate is a real one, all can be stored."""
    offered = tune.tunables()
    keys = [(t.kernel, t.shape) for t in offered]
    assert len(keys) == len(set(keys))
    for t in offered:
        assert 1 <= len(t.candidates) <= 40, f"{t.kernel} {t.shape}"
        assert all(json.loads(json.dumps(c)) == c for c in t.candidates)
        assert len({json.dumps(c, sort_keys=True) for c in t.candidates}) == len(t.candidates)


def test_unknown_kernels_are_named() -> None:
    with pytest.raises(ParameterError, match=r"No kernel .nonsense."):
        tune.tunables(["nonsense"])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_processes_share_the_compiling(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def prepare(device: torch.device) -> Callable[[tune.Config], Callable[[], None]]:
        def use(config: tune.Config) -> Callable[[], None]:
            if config["n"] == 5:
                raise ValueError("does not compile")
            return lambda: made.append(f"{config['n']}")
        return use

    offered = [tune.Tunable("a", "x", [{"n": i} for i in range(4)], prepare),
               tune.Tunable("a", "y", [{"n": i} for i in range(4, 9)], prepare)]
    monkeypatch.setattr(tune, "tunables", lambda _=(): offered)
    for index in range(count):
        tune.compile_share(index, count)
    assert sorted(made) == [str(i) for i in (0, 1, 2, 3, 4, 6, 7, 8)]


# ---------------------------------------------------------------- the command


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_what_to_do() -> None:
    result = runner.invoke(cli.app, ["tune"])
    assert isinstance(result.exception, tune.TuneError)
    assert "machine with a GPU" in str(result.exception)


def test_the_command_lists_measures_and_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    tunable = one({"first": 1.0, "fast": 1.0})
    monkeypatch.setattr(tune, "tunables", lambda _=(): [tunable])
    monkeypatch.setattr(tune, "need_gpu", lambda: None)
    monkeypatch.setattr(tune, "compile_all", lambda _: None)
    monkeypatch.setattr(tune, "architecture", lambda: "sm_90")
    real = tune.tune
    monkeypatch.setattr(tune, "tune", lambda t: real(
        t, "cpu", timed=timed_as({"first": 3e-6, "fast": 2e-6})))
    listed = runner.invoke(cli.app, ["tune", "--list"])
    assert listed.exit_code == 0 and "fake  any  2 candidates" in listed.output
    dry = runner.invoke(cli.app, ["tune", "--dry-run"])
    assert dry.exit_code == 0 and "name=fast" in dry.output and "1.50×" in dry.output
    assert tune.best("fake", "any", "sm_90") is None
    done = runner.invoke(cli.app, ["tune", "--write"])
    assert done.exit_code == 0, done.output
    assert done.output.count("Wrote ") == 2
    assert tune.best("fake", "any", "sm_90") == {"name": "fast"}
    assert tune.read(tune.package_file()) == tune.read(tune.user_file())
