"""Takes the default model to a machine without a network, in parts of one transfer each.

    python tools/model_parts.py split FOLDER --parts 2      # here: FOLDER/1, FOLDER/2, …
    python tools/model_parts.py take FOLDER/1 TARGET        # there, after the first transfer
    python tools/model_parts.py take FOLDER/2 TARGET        # there, after the next; the last joins
    . TARGET/environment                                    # there: INFERO_MODEL, PYTHONPATH, …

Every part's folder also holds the wheel of the `gguf` library, which reads the file; `take` unpacks
it beside the model. The joined file is compared with the model's known SHA-256. `take` needs only
Python's standard library; `split` needs what `make env` installs, and pip's index for the wheel
(or --wheel FILE).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHUNK = 1 << 22  # bytes copied at a time
FACTS = "part.json"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_wheel(given: str | None, folder: Path) -> Path:
    """The gguf wheel: the given file, or one fetched by pip for the installed version."""
    if given:
        return Path(given)
    from importlib import metadata

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest",
               str(folder), f"gguf=={metadata.version('gguf')}"]
    subprocess.run(command, check=True)
    return next(folder.glob("gguf-*.whl"))


def split(folder: Path, parts: int, model: str | None, wheel: str | None) -> int:
    """Write FOLDER/1 … FOLDER/parts, each with a piece of the file, the wheel and the facts."""
    sys.path.insert(0, str(ROOT))
    from infero.loading import source

    path = Path(model) if model else source.default_file()
    digest, size = sha256(path), path.stat().st_size
    folder.mkdir(parents=True, exist_ok=True)
    package = find_wheel(wheel, folder)
    each = -(-size // parts)
    with path.open("rb") as file:
        for number in range(1, parts + 1):
            place = folder / str(number)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            left = min(each, size - file.tell())
            with (place / f"piece{number}").open("wb") as out:
                while left:
                    data = file.read(min(CHUNK, left))
                    out.write(data)
                    left -= len(data)
            shutil.copy(package, place)
            facts = dict(file=path.name, sha256=digest, bytes=size, number=number, parts=parts)
            (place / FACTS).write_text(json.dumps(facts), encoding="utf-8")
            total = sum(f.stat().st_size for f in place.iterdir())
            print(f"{place}: {total / 2**20:.1f} MiB")
    if package.parent == folder:
        package.unlink()
    return 0


def take(part: Path, target: Path) -> int:
    """Keep one part in TARGET; with the last of them, join, compare and write `environment`."""
    facts = json.loads((part / FACTS).read_text(encoding="utf-8"))
    target.mkdir(parents=True, exist_ok=True)
    model = target / facts["file"]
    if not (model.exists() and sha256(model) == facts["sha256"]):
        piece = f"piece{facts['number']}"
        shutil.copy(part / piece, target / piece)
        pieces = [target / f"piece{n}" for n in range(1, facts["parts"] + 1)]
        if missing := [p.name for p in pieces if not p.exists()]:
            print(f"kept {piece}; still to come: {', '.join(missing)}")
            return 0
        with model.open("wb") as out:
            for each in pieces:
                with each.open("rb") as file:
                    shutil.copyfileobj(file, out, CHUNK)
        if (found := sha256(model)) != facts["sha256"]:
            model.unlink()
            print(f"the joined file's SHA-256 is {found}, not {facts['sha256']}: split again and "
                  "take every part again", file=sys.stderr)
            return 1
        for each in pieces:
            each.unlink()
    site = target / "site"
    with zipfile.ZipFile(next(part.glob("gguf-*.whl"))) as wheel:
        wheel.extractall(site)
    (target / "environment").write_text(
        f'export INFERO_MODEL="{model}" INFERO_CACHE="{target / "cache"}"\n'
        f'export PYTHONPATH="{ROOT}:{site}${{PYTHONPATH:+:$PYTHONPATH}}"\n', encoding="utf-8")
    print(f"{model}: {model.stat().st_size:,} bytes, checked; next: . {target / 'environment'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("split", help="here: cut the file")
    one.add_argument("folder", type=Path)
    one.add_argument("--parts", type=int, default=2)
    one.add_argument("--model", help="another .gguf file")
    one.add_argument("--wheel", help="the gguf wheel, instead of fetching it")
    two = commands.add_parser("take", help="there: keep a part, join when all have come")
    two.add_argument("part", type=Path)
    two.add_argument("target", type=Path)
    args = parser.parse_args(argv)
    if args.command == "take":
        return take(args.part, args.target.resolve())
    if args.parts < 1:
        parser.error(f"--parts {args.parts}: at least 1")
    return split(args.folder, args.parts, args.model, args.wheel)


if __name__ == "__main__":
    sys.exit(main())
