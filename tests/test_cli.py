"""The `infero` command: help, errors in words, a stream, a chat, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
                                     "bench", "trace"])
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
