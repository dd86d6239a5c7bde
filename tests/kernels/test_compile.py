"""Every kernel compiles for compute capability 7.5, 8.0 and 9.0, on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from infero.kernels import examples


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """All of them, in one process of its own, because here kernels may be interpreted."""
    program = ("import json; from infero.kernels import examples\n"
               "print('REPORT' + json.dumps(examples.report([])))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False, env=os.environ | {"TRITON_INTERPRET": "0"})
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    assert lines, done.stdout + done.stderr
    return dict(json.loads(lines[0].removeprefix("REPORT")))


def test_every_kernel_compiles(report: dict[str, Any]) -> None:
    wrong = [one for one in report["compiled"] if one["error"]]
    assert not wrong, "\n\n".join(
        f"{one['module']}.{one['kernel']} for {one['target']}: {one['error']}" for one in wrong)
    seen = {tuple(one["target"]) for one in report["compiled"]}
    assert not report["modules"] or seen == set(examples.TARGETS)


def test_every_kernel_has_an_example(report: dict[str, Any]) -> None:
    missing = {module: names for module, names in report["without_example"].items() if names}
    assert not missing, f"kernels that nothing compiles; add them to examples(): {missing}"


def test_nothing_spills_much(report: dict[str, Any]) -> None:
    """A few bytes are how some kernels win; hundreds mean blocks too large for the registers."""
    wrong = [(one["module"], one["kernel"], one["target"], one["spilled_bytes"])
             for one in report["compiled"] if one["spilled_bytes"] > 512]
    assert not wrong, f"bytes spilled a thread: {wrong}"


def test_a_module_says_what_it_forgot() -> None:
    assert "infero.kernels.examples" not in examples.modules()
