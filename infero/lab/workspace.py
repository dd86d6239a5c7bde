"""The learner's copies of the notebooks: `my_infero/labs/`, made by `make lab`.

`python -m infero.lab.workspace` copies each lab that is not there yet. A copy that was edited is
never overwritten: when the book's lab has changed since, the new one is put beside it as
`NAME.new.ipynb`. Running a notebook does not count as editing it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from infero.lab import folder, mode

_RECORD = ".upstream.json"


def labs_folder() -> Path | None:
    """The book's own notebooks: in the repository, or None where only the package is installed."""
    root = folder.repository()
    return root / "labs" if root is not None else None


def cells_print(path: Path) -> str:
    """A fingerprint of a notebook's cells that ignores outputs, counters and metadata."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"]).rstrip()) for cell in cells]
        text = json.dumps([pair for pair in sources if pair[1]])
    except (ValueError, KeyError, TypeError):
        text = path.read_text(encoding="utf-8", errors="replace")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def copy_labs() -> list[str]:
    """Bring the learner's notebooks up to date; one line for each thing done or to know."""
    source = labs_folder()
    if source is None:
        return [
            "This is an installed package without the book's notebooks: get them from its "
            "repository."
        ]
    target = folder.locate() / "labs"
    known = _known()
    lines = []
    for path in sorted(source.glob("[0-9][0-9]_*.ipynb")):
        copy, new = target / path.name, cells_print(path)
        if not copy.exists():
            folder.write(copy, path.read_text(encoding="utf-8"))
            known[path.name] = new
            lines.append(f"{path.name}: copied to {folder.shown(copy)}.")
            continue
        mine = cells_print(copy)
        if mine == new:
            known[path.name] = new
        elif mine == known.get(path.name):
            folder.write(copy, path.read_text(encoding="utf-8"))
            known[path.name] = new
            lines.append(
                f"{path.name}: replaced by the book's new version (you had not edited it)."
            )
        elif known.get(path.name) != new:
            lines.append(_beside(path, copy, new, known))
    folder.write(target / _RECORD, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return lines or ["Your notebooks are up to date."]


def _beside(path: Path, copy: Path, new: str, known: dict[str, str]) -> str:
    """The lab changed and so did the learner's copy: put the new one beside it."""
    beside = copy.with_name(f"{path.stem}.new.ipynb")
    if beside.exists() and cells_print(beside) not in (new, known.get(beside.name)):
        return (
            f"{path.name}: the book's lab changed again, and you have edited "
            f"{folder.shown(beside)}; "
            "both are left as they are."
        )
    if not beside.exists() or cells_print(beside) != new:
        folder.write(beside, path.read_text(encoding="utf-8"))
    known[beside.name] = new
    return (
        f"{path.name}: the book's lab changed. Your edited copy is untouched; the new version is "
        f"{folder.shown(beside)}."
    )


def news(stem: str) -> str:
    """A sentence for `lab.start` when the book's lab is not the one the learner's copy came "
    "from."""
    source = labs_folder()
    if source is None or mode.current() != "learn":
        return ""
    path = source / f"{stem}.ipynb"
    known = _known().get(path.name)
    if known is None or not path.is_file() or cells_print(path) == known:
        return ""
    return "The book's version of this lab has changed since you copied it: `make lab` brings it."


def _known() -> dict[str, str]:
    """Fingerprints of the book's labs as they were when copied."""
    text = folder.read(folder.locate() / "labs" / _RECORD)
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def main() -> int:
    try:
        lines = copy_labs()
    except OSError as error:
        print(
            f"Cannot write your notebooks: {error}. Set INFERO_MINE to a folder you can write to."
        )
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
