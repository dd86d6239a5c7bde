"""Make the plain-English text that quality is measured on, from the book's own prose.

    .venv/bin/python tools/freeze_text.py [--out DIR]

The shipped files in infero/data/text/ were made once and stay as they are: a perplexity is only
comparable on the same text, so a later edition of the book must not change it. Run this again only
to start a new series of numbers; without --out it refuses to overwrite them.

Kept are paragraphs of running text from chapters, labs and the glossary. Markup, code, tables,
figures, citations and sentences that lean on formulas or identifiers are dropped; measured numbers
appear as the site shows them. Whole chapters go to one part or the other, so nothing is in both.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "infero" / "data" / "text"
EVALUATION = ("03", "08", "11", "15")  # chapters of the evaluation part; the others calibrate
WORDS_AT_LEAST = 12  # in a paragraph
KEPT_AT_LEAST = 0.5  # of a paragraph's words, or none of it
CODE_AT_MOST = 0.12  # of a sentence's characters


def plain(page: str) -> list[str]:
    """The paragraphs of a MyST page that read as plain English, in order."""
    page = re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.S)
    page = re.sub(r"^```\{glossary\}\n(.*?)^```$", r"\1", page, flags=re.M | re.S)
    fences = r"^(`{3,}|:{3,})\{?[^\n]*\n.*?^\1[ \t]*$"
    kept = re.sub(r"^```\{(?:exercise|solution)\}[^\n]*\n((?:(?!```).*\n)*?)```$",
                  lambda m: re.sub(r"^:.*$", "", m[1], flags=re.M), page, flags=re.M)
    kept = re.sub(fences, "", kept, flags=re.M | re.S)
    kept = re.sub(r"^\$\$.*?\$\$[^\n]*$", "\n", kept, flags=re.M | re.S)
    paragraphs = []
    for part in re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", kept):
        text = " ".join(line.strip() for line in part.strip().splitlines())
        if re.match(r"[#|<%(]|:\w+:", text):
            continue
        text = re.sub(r"^(?:[-*]|\d+\.|>) +", "", text)
        found = plain_text(text)
        if found and len(found.split()) >= WORDS_AT_LEAST and found[-1] in ".?!:":
            paragraphs.append(found)
    return paragraphs


def plain_text(text: str) -> str:
    """One paragraph without its markup, and without the sentences that markup carries."""
    words = len(text.split())
    text = re.sub(r"<[^>]*>", "", text)
    text = re.sub(r"\{result\}`([^`]*)`", measured, text)
    text = re.sub(r"\s*\{cite:\w+\}`[^`]*`", "", text)
    text = re.sub(r"\{numref\}`[^`]*`", "the figure", text)
    text = re.sub(r"\{eq\}`[^`]*`", "the formula above", text)
    text = re.sub(r"\{\w+(?::\w+)?\}`([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\$([^$]*)\$", formula, text)
    text = re.sub(r"(\*\*|\*|__)(\S(?:.*?\S)?)\1", r"\2", text)
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    text = re.sub(r"(?<=[.?!] )the (?=figure|formula)", "The ", text)
    kept = [s for s in re.split(r"(?<=[.?!])\s+(?=[A-Z\"0-9`])", text) if readable(s)]
    if len(" ".join(kept).split()) < KEPT_AT_LEAST * words:
        return ""
    kept = [re.sub(r"^the ", "The ", s.replace("`", "")) for s in kept]
    return re.sub(r" +([.,;])", r"\1", re.sub(r"  +", " ", " ".join(kept))).strip()


def readable(sentence: str) -> bool:
    """Whether a sentence is English and not mostly a formula, a name or an address."""
    code = re.findall(r"`([^`]*)`", sentence)
    if sum(map(len, code)) > CODE_AT_MOST * len(sentence) or sentence[-1:] not in ".?!:":
        return False
    return not re.search(r"[$\\{}|_^<>=]|https?:", sentence.replace("`", ""))


def formula(match: re.Match[str]) -> str:
    """A formula that is a number or a letter as text; any other keeps a dollar sign."""
    inner = match[1].replace("{,}", ",").replace(r"\%", "%").replace(r"\times", "times")
    return inner if re.fullmatch(r"[\w ,.%+/×-]+", inner) and "_" not in inner else "$"


def measured(match: re.Match[str]) -> str:
    """A result as the site shows it."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    sys.path.insert(0, str(ROOT))
    from infero_book.results import text_of

    return text_of(match[1])[0]


def lab_page(path: Path) -> str:
    """The text cells of a notebook as one page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def parts() -> dict[str, str]:
    """The two texts by name: "calibration" and "evaluation"."""
    found: dict[str, list[str]] = {"evaluation": [], "calibration": []}
    chapters = sorted((ROOT / "book").glob("[0-9][0-9]_*.md"))
    labs = sorted((ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))
    seen: set[str] = set()
    for split, paragraphs in found.items():
        wanted = split == "evaluation"
        mine = [p for p in [*chapters, *labs] if (p.name[:2] in EVALUATION) == wanted]
        pages = [lab_page(p) if p.suffix == ".ipynb" else p.read_text(encoding="utf-8")
                 for p in mine]
        if split == "calibration":
            glossary = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
            pages.append(re.sub(r"^([^ `\n].*)\n  (?=\S)", r"\1: ", glossary, flags=re.M))
        for page in pages:
            title = re.search(r"^# (.+)$", page, flags=re.M)
            fresh = [p for p in plain(page) if p not in seen]
            paragraphs += [title[1]] * bool(title) + fresh
            seen.update(fresh)
    return {name: "\n\n".join(paragraphs) + "\n" for name, paragraphs in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder to write (default: the shipped one)")
    out = parser.parse_args().out or SHIPPED
    if out == SHIPPED and (out / "source.json").exists():
        print(f"{out} is frozen: numbers measured on it would no longer compare. Give --out, or "
              "delete the folder to start anew.", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, text=True,
                            capture_output=True).stdout.strip()
    files = {}
    for name, text in parts().items():
        (out / f"{name}.txt").write_text(text, encoding="utf-8")
        files[f"{name}.txt"] = {"sha256": hashlib.sha256(text.encode()).hexdigest(),
                                "words": len(text.split()), "bytes": len(text.encode())}
    record = {
        "what": "The prose of the Infero book as plain English, frozen; chapters "
                f"{', '.join(EVALUATION)} are the evaluation part, the others calibrate.",
        "licence": "CC-BY-4.0", "author": "The Infero authors", "commit": commit,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "made_by": "tools/freeze_text.py", "files": files,
    }
    (out / "source.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
