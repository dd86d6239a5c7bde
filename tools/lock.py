"""Resolve tools/requirements.in into requirements.txt: `make lock PYTHON=python3.11`, on Linux.

pip only resolves, nothing is installed. The lines carry no hashes and no local version tags, so
that one file serves CPU and CUDA builds, and markers where a package exists on one system only.
`--newest` lets torch and triton float too: the weekly check for rot uses it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tools" / "requirements.in"
TARGET = ROOT / "requirements.txt"
OLDEST = (3, 11, 2)  # the oldest Python still met: Debian 12's
ONLY = {"triton": 'sys_platform == "linux"', "appnope": 'sys_platform == "darwin"'}
HEAD = """\
# Everything that the engine, the labs, the book and the tests need, pinned. Made by `make lock`
# from tools/requirements.in with Python {python}; do not edit. `make` installs it: torch first,
# the CPU build where there is no NVIDIA GPU, and last the default model (tools/setup.py).
"""


def resolve(source: Path) -> list[dict[str, Any]]:
    """What pip would install, as its report tells it."""
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--report", "-", "-r", str(source)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [item["metadata"] for item in json.loads(done.stdout)["install"]]


def pinned(packages: list[dict[str, Any]]) -> dict[str, str]:
    """A requirement for each package of pip's report, by name; CUDA parts are left to torch."""
    lines = {}
    for package in packages:
        name = re.sub(r"[-_.]+", "-", package["name"]).lower()
        if not name.startswith(("nvidia-", "cuda-")):
            marker = f"; {ONLY[name]}" if name in ONLY else ""
            lines[name] = f"{name}=={package['version'].partition('+')[0]}{marker}"
    return lines


def too_new(packages: list[dict[str, Any]]) -> list[str]:
    """Packages that ask for a later 3.11 than the oldest that is still met."""
    return [
        f"{package['name']} {package['version']} ({package['requires_python']})"
        for package in packages
        for found in re.findall(r">=\s*3\.11\.(\d+)", package.get("requires_python") or "")
        if int(found) > OLDEST[2]
    ]


def elsewhere(old: str) -> dict[str, str]:
    """Requirements with a marker in the old file: this system may not have resolved them."""
    lines = [line for line in old.splitlines() if ";" in line and not line.startswith("#")]
    return {line.partition("==")[0]: line for line in lines}


def main(argv: list[str]) -> int:
    if sys.version_info[:2] != OLDEST[:2]:
        print("Lock with the oldest Python: make lock PYTHON=python3.11", file=sys.stderr)
        return 1
    source = SOURCE.read_text(encoding="utf-8")
    if "--newest" in argv:
        source = re.sub(r"^(torch|triton)==[^;\s]+", r"\1", source, flags=re.M)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.in"
        path.write_text(source, encoding="utf-8")
        packages = resolve(path)
    if late := too_new(packages):
        print(f"Pin an older one in {SOURCE.name}: {', '.join(late)}", file=sys.stderr)
        return 1
    lines = elsewhere(TARGET.read_text(encoding="utf-8")) | pinned(packages)
    text = HEAD.format(python="3.11") + "\n".join(lines[name] for name in sorted(lines)) + "\n"
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.name}: {len(lines)} packages. Now run `make test` and `make site`.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
