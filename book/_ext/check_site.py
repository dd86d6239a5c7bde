"""Check a built site: jupyter-book can exit 0 with pages missing, so look at what it made.

    python book/_ext/check_site.py [_build/html]

Every page of _toc.yml must be there and hold its title, every link and file that a page names must
exist in the site, nothing may be loaded from another host, labs must hold outputs and no error.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("index.html", "404.html", "search.html", "searchindex.js", "sitemap.xml", "robots.txt",
         "llms.txt", "_static/infero.css", "_static/mathjax/tex-chtml.js")  # fmt: skip
LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src"}
LINK_LOADS = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}


class Page(HTMLParser):
    """What a page names: files that it loads, links that it offers, ids to link to, its titles."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attrs}
        if "id" in named:
            self.ids.add(named["id"])
        if tag == "h1":
            self.headings += 1
        if tag in LOADS and named.get(LOADS[tag]):
            self.loads.append(named[LOADS[tag]])
        elif tag == "link" and LINK_LOADS & set(named.get("rel", "").split()):
            self.loads.append(named.get("href", ""))
        elif tag == "a" and named.get("href"):
            self.links.append(named["href"])


def listed(toc: Path) -> list[str]:
    """Every page of a table of contents, in order, without suffix."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key in ("root", "file"):
                    found.append(str(value))
                else:
                    walk(value)

    walk(yaml.safe_load(toc.read_text(encoding="utf-8")))
    return [re.sub(r"\.(md|ipynb)$", "", page) for page in found]


def problems(site: Path, toc: Path = ROOT / "_toc.yml") -> list[str]:
    """Everything wrong with a built site, in words; empty when it is good."""
    if not site.is_dir():
        return [f"there is no site at {site}; build it with: make site"]
    found = [f"{name} is missing" for name in EXTRA if not (site / name).is_file()]
    pages: dict[Path, Page] = {}
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.relative_to(site).parts:
            pages[path] = Page()
            text = path.read_text(encoding="utf-8")
            pages[path].feed(text)
            if 'class="math' in text and "mathjax/tex-chtml.js" not in text:
                where = path.relative_to(site).as_posix()
                found.append(f"{where} holds mathematics and does not load MathJax")
    for name in listed(toc):
        path = site / f"{name}.html"
        if path not in pages:
            found.append(f"{name}.html is missing, though _toc.yml lists {name}")
        elif not pages[path].headings:
            found.append(f"{name}.html has no title")
        elif name.startswith("labs/"):
            found += [f"{name}.html {words}" for words in _lab(path)]
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        base = site if where == "404.html" else path.parent
        for url in page.loads:
            if urlparse(url).netloc and not url.startswith("http://127.0.0.1"):
                found.append(f"{where} loads {url}, which leaves the host")
            elif not url.startswith(("data:", "http")) and not _file(base, url).is_file():
                found.append(f"{where} loads {url}, which is not in the site")
        for url in page.links:
            found += _link(site, where, base, url, pages, page)
    return found


def _lab(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    words = []
    if "cell_output" not in text:
        words.append("holds no outputs: its notebook was not run")
    if "Traceback (most recent call last)" in text:
        words.append("shows a traceback")
    return words


def _file(base: Path, url: str) -> Path:
    return (base / unquote(url.partition("?")[0].partition("#")[0])).resolve()


def _link(site: Path, where: str, base: Path, url: str, pages: dict[Path, Page], page: Page
          ) -> list[str]:  # fmt: skip
    parts = urlparse(url)
    if parts.scheme or parts.netloc:
        return []
    target = _file(base, parts.path) if parts.path else site / where
    if not target.is_file():
        return [f"{where} links to {url}, which is not in the site"]
    mark = unquote(parts.fragment)
    known = pages.get(target)
    if mark and known is not None and mark not in known.ids and not mark.startswith("L-"):
        return [f"{where} links to {url}, where nothing is called {mark}"]
    return []


def main(argv: list[str]) -> int:
    site = Path(argv[0]) if argv else ROOT / "_build" / "html"
    found = problems(site.resolve())
    for text in found:
        print(f"site: {text}", file=sys.stderr)
    if found:
        print(f"The site has {len(found)} problems; mend them and run: make site", file=sys.stderr)
        return 1
    print(f"The site is whole: {len(listed(ROOT / '_toc.yml'))} pages in {site}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
