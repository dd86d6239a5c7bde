"""Opens JupyterLab on the learner's own copies of the notebooks: `make lab`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    os.chdir(ROOT)
    os.environ.pop("INFERO_LAB", None)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the tests do: see tools/test.py
    from infero.lab import folder, workspace

    try:
        lines = workspace.copy_labs()
    except OSError as problem:
        print(
            f"Cannot write your notebooks: {problem}. Set INFERO_MINE to another folder.",
            file=sys.stderr,
        )
        return 1
    print("\n".join(lines), flush=True)
    notebooks = folder.locate() / "labs"
    print(f"Opening JupyterLab on {notebooks} (Ctrl-C stops it).", flush=True)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={notebooks}",
        "--ServerApp.ip=127.0.0.1",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
