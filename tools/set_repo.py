"""Names the repository everywhere that needs it: `make set-repo URL=https://github.com/OWNER/NAME`.

`repository.url` in _config.yml is the one place that names it; this program writes it there and in
what must repeat it: the labs' first cell (Colab installs the engine from there), CITATION.cff,
pyproject.toml and the README's clone command. Running it again changes nothing; `URL=none` undoes
it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent


class BadUrl(ValueError):
    """An address that no repository can have."""


def checked(text: str) -> str:
    """The repository's address without a trailing slash or .git; "" for `none`."""
    if text == "none":
        return ""
    example = "write make set-repo URL=https://github.com/OWNER/NAME"
    if not text:
        raise BadUrl(f"URL is missing: {example}")
    parts = urlsplit(text)
    path = parts.path.rstrip("/").removesuffix(".git")
    if parts.scheme != "https" or not re.fullmatch(r"[\w.-]+\.[a-z]{2,}", parts.netloc):
        raise BadUrl(f"{text!r} is no https address of a repository: {example}")
    names = [name for name in path.split("/") if name]
    good = all(re.fullmatch(r"[\w.-]+", name) and set(name) != {"."} for name in names)
    if len(names) < 2 or not good or parts.query or parts.fragment:
        raise BadUrl(f"{text!r} does not name an owner and a repository: {example}")
    if parts.netloc == "github.com" and len(names) != 2:
        raise BadUrl(f"{text!r} has more than owner and name after github.com: {example}")
    return f"https://{parts.netloc}/{'/'.join(names)}"


def config(text: str, url: str) -> str:
    """_config.yml with this `repository:` block, below the comment that announces it."""
    text = re.sub(r"^repository:\n(?:[ \t]+.*\n)+\n?", "", text, flags=re.M)
    if not url:
        return text
    block = f"repository:\n  url: {url}\n  branch: main\n\n"
    mark = re.search(r"^# Until then there are no repository links.*\n\n", text, flags=re.M)
    at = mark.end() if mark else len(text)
    return text[:at] + block + text[at:]


def citation(text: str, url: str) -> str:
    text = re.sub(r"^repository-code:.*\n", "", text, flags=re.M)
    return text + f'repository-code: "{url}"\n' if url else text


def pyproject(text: str, url: str) -> str:
    text = re.sub(r"^\[project\.urls\]\n(?:\w.*\n)*\n", "", text, flags=re.M)
    if not url:
        return text
    block = f'[project.urls]\nRepository = "{url}"\nIssues = "{url}/issues"\n\n'
    return text.replace("[project.scripts]\n", block + "[project.scripts]\n", 1)


def readme(text: str, url: str) -> str:
    text = re.sub(r"^git clone .*\n", "", text, flags=re.M)
    if not url:
        return text
    name = url.rpartition("/")[2]
    return text.replace("make book    #", f"git clone {url} && cd {name}\nmake book    #", 1)


def notebook(text: str, url: str, lab: str) -> str:
    """A lab with the first code cell that belongs to this address."""
    from infero.lab import bootstrap

    data = json.loads(text)
    first = next(cell for cell in data["cells"] if cell["cell_type"] == "code")
    source = bootstrap.cell(lab, url)
    if "".join(first["source"]) == source:
        return text
    first["source"] = source.splitlines(keepends=True)
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def apply(url: str, root: Path = ROOT) -> list[str]:
    """Write the address everywhere; the names of the files that changed."""
    edits = [
        ("_config.yml", config),
        ("CITATION.cff", citation),
        ("pyproject.toml", pyproject),
        ("README.md", readme),
    ]
    planned = {root / name: edit((root / name).read_text("utf-8"), url) for name, edit in edits}
    for path in sorted((root / "labs").glob("[0-9][0-9]_*.ipynb")):
        planned[path] = notebook(path.read_text("utf-8"), url, path.name[:2])
    changed = []
    for path, text in planned.items():
        if text != path.read_text("utf-8"):
            path.write_text(text, encoding="utf-8")
            changed.append(path.relative_to(root).as_posix())
    return changed


def main(argv: list[str]) -> int:
    try:
        url = checked(argv[0].strip() if argv else "")
    except BadUrl as problem:
        print(problem, file=sys.stderr)
        return 1
    changed = apply(url)
    print(f"Changed: {', '.join(changed)}." if changed else "Nothing to change.")
    if changed and url and "github.com" not in url:
        print("Colab opens notebooks from GitHub only, so there are no Colab buttons.")
    if changed:
        print("Now run `make test`, then commit.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
