"""Kernels under the interpreter: small sizes on a CPU, in float32 and float16."""

from __future__ import annotations

import pytest

from infero.kernels import language

if not language.available():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _usable() -> None:
    language.need()
