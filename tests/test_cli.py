"""The `infero` command: help, errors in words, a stream, a chat, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infero import cli

runner = CliRunner()


def infero(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in its own process."""
    return subprocess.run([sys.executable, "-m", "infero.cli", *args], text=True, timeout=120,
                          capture_output=True, env=os.environ | {"COLUMNS": "120"} | env)


@pytest.mark.parametrize("command", ["", "generate", "chat", "pieces", "check", "roofline",
                                     "bench", "bench throughput", "bench scheduler",
                                     "bench ladder", "bench compare", "trace", "tune", "eval"])
def test_every_command_has_help(command: str) -> None:
    result = runner.invoke(cli.app, [*command.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output


def test_help_and_version_need_no_torch() -> None:
    code = ("import sys, infero.cli; from typer.testing import CliRunner as R\n"
            "assert R().invoke(infero.cli.app, ['--help']).exit_code == 0\n"
            "assert 'torch' not in sys.modules")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_bad_parameter_is_one_message() -> None:
    result = infero("generate", "hi", "--top-p", "1.5")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "top_p is 1.5" in result.stderr and "(0, 1]" in result.stderr


def test_a_missing_model_is_one_message() -> None:
    result = infero("generate", "hi", "--model", "./no/such/folder")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "no/such/folder" in result.stderr


@pytest.mark.usefixtures("smollm2")
def test_generate_continues_the_text() -> None:
    result = infero("generate", "The capital of France is", "-n", "8")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The capital of France is") and "Paris" in result.stdout
    assert "tok/s" in result.stderr and "TTFT" in result.stderr


@pytest.mark.usefixtures("smollm2")
def test_the_naive_loop_says_the_same() -> None:
    cached = infero("generate", "One, two, three,", "-n", "8", "--dtype", "float32")
    naive = infero("generate", "One, two, three,", "-n", "8", "--dtype", "float32", "--naive")
    assert naive.stdout == cached.stdout and "no KV cache" in naive.stderr


@pytest.mark.usefixtures("smollm2")
def test_trace_writes_a_file_that_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    result = infero("trace", "The capital of France is", "-n", "4", "-o", str(path))
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout and "perfetto" in result.stderr
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert {"prefill", "decode 1", "attention"} <= names


def test_a_trace_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    result = infero("trace", "hi", "-n", "2", "-o", str(tmp_path))
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr


@pytest.mark.usefixtures("smollm2")
def test_chat_survives_an_interrupted_answer() -> None:
    """Ctrl-C during an answer stops the answer; the program goes on and leaves at /exit."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "infero.cli", "chat", "-n", "2000", "-t", "1.5",
         "--seed", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("Tell me a very long story.\n")
    process.stdin.flush()
    seen = ""
    while len(seen) < 80:  # the prompt, then the answer's first words
        seen += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate("/clear\n/exit\n", timeout=60)
    assert process.returncode == 0, stderr
    assert "stopped" in stderr and "Traceback" not in stderr


# ---------------------------------------------------------------- traces and timelines


def test_trace_demo_writes_a_page_and_a_trace(tmp_path: Path) -> None:
    page, trace = tmp_path / "demo.html", tmp_path / "demo.json.gz"
    result = runner.invoke(cli.app, ["trace", "--demo", "--html", str(page), "--perfetto",
                                     str(trace)])
    assert result.exit_code == 0, result.output
    assert "preemptions" in result.output and "prefix cache" in result.output
    assert "A small engine under pressure" in page.read_text()
    assert trace.stat().st_size > 1000


def test_a_timeline_is_drawn(tmp_path: Path) -> None:
    from infero import timeline
    from infero.engine import Engine, EngineConfig
    from infero.lab.configurations import tiny_model

    engine = Engine(tiny_model(), EngineConfig(num_blocks=8))
    path, page = tmp_path / "run.jsonl", tmp_path / "run.html"
    with timeline.recording(engine, path):
        engine.add_request("one", [1, 2, 3])
        while engine.has_unfinished():
            engine.step()
    result = runner.invoke(cli.app, ["trace", str(path)])
    assert result.exit_code == 0 and "--html" in result.output
    result = runner.invoke(cli.app, ["trace", str(path), "--html", str(page)])
    assert result.exit_code == 0 and page.exists()


@pytest.mark.parametrize("name, words", [("missing.jsonl", "no file"), ("other.jsonl", "timeline")])
def test_a_timeline_that_is_none_is_one_message(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "other.jsonl").write_text("hello")
    result = infero("trace", str(tmp_path / name), "--html", str(tmp_path / "x.html"))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert words in result.stderr and "--trace run.jsonl" in result.stderr.replace("\n", " ")


def test_a_profilers_trace_is_reported(tmp_path: Path) -> None:
    from infero import trace as t

    result = runner.invoke(cli.app, ["trace", str(t.recorded("decode_eager"))])
    assert result.exit_code == 0, result.output
    assert "The GPU was busy" in result.output and "kernel" in result.output
    path = tmp_path / "host.json"
    path.write_text('{"traceEvents": []}')
    result = runner.invoke(cli.app, ["trace", str(path)])
    assert result.exit_code == 0 and "no work of a GPU" in result.output


@pytest.mark.usefixtures("smollm2")
def test_generate_records_a_timeline(tmp_path: Path) -> None:
    path, page = tmp_path / "run.jsonl", tmp_path / "run.html"
    result = infero("generate", "One, two,", "-n", "4", "--trace", str(path))
    assert result.returncode == 0, result.stderr
    result = infero("trace", str(path), "--html", str(page))
    assert "1 requests, 1 finished, in 4 steps" in result.stdout, result.stderr
    assert "One, two," in page.read_text()
    result = infero("generate", "One, two,", "-n", "4", "--naive", "--trace", str(path))
    assert result.returncode == 2 and "no --naive" in result.stderr.replace("\n", " ")


# ---------------------------------------------------------------- bench


@pytest.mark.usefixtures("smollm2")
def test_bench_throughput_compares(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    result = infero("bench", "throughput", "--requests", "5", "--slots", "2", "--lengths",
                    "geometric:3:5", "--prompt-tokens", "4", "--compare", "--trace", str(path))
    assert result.returncode == 0, result.stderr
    for words in ("continuous", "static", "ideal gain", "preemptions", "prefix cache"):
        assert words in result.stdout
    assert path.exists() and str(path) in result.stderr.replace("\n", "")


@pytest.mark.usefixtures("smollm2")
def test_ctrl_c_prints_what_was_measured() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "infero.cli", "bench", "throughput", "--lengths", "fixed:500"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"COLUMNS": "200"})
    assert process.stdout is not None
    process.stdout.readline()  # the job is described; the warm-up runs
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "Ctrl-C" in stdout or stdout == "", stdout  # nothing, if it still warmed up


@pytest.mark.parametrize("options, words", [
    (["--lengths", "zipf:3"], "geometric:32:256"),
    (["--prompt-tokens", "0"], "at least 1 token"),
    (["--slots", "0"], "slots is 0"),
    (["--requests", "0"], "requests is 0"),
    (["--shape", "9b"], "llama-3-8b"),
    (["--shape", "8b", "--model", "x"], "exclude one another"),
    (["--shape", "8b", "--dtype", "int3"], "dtype is 'int3'"),
])
def test_bad_options_of_bench_throughput(options: list[str], words: str) -> None:
    result = runner.invoke(cli.app, ["bench", "throughput", *options])
    assert words in str(result.exception), result.output


def test_messages_keep_their_colons() -> None:
    result = infero("bench", "throughput", "--lengths", "zipf:3")
    assert result.returncode == 2 and "uniform:100:1024" in result.stderr


def test_bench_scheduler() -> None:
    result = runner.invoke(cli.app, ["bench", "scheduler", "--running", "2,4", "--steps", "5",
                                     "--queued", "20"])
    assert result.exit_code == 0, result.output
    assert "to the power" in result.output and "20 more in the queue" in result.output
    result = runner.invoke(cli.app, ["bench", "scheduler", "--running", "many"])
    assert "separated by commas" in str(result.exception)
