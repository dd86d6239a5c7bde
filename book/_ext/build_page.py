"""Build one page of the book fast, to look at it while writing.

    python book/_ext/build_page.py book/01_from_prompt_to_token.md
    python book/_ext/build_page.py labs/01_from_prompt_to_token.ipynb --execute

Builds the page, its lab or chapter and the glossary alone, without running notebooks unless told.
Missing results and links to pages left out are warnings here and errors in `make site`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", nargs="+", help="book/NN_name.md or labs/NN_name.ipynb")
    parser.add_argument("--execute", action="store_true", help="run notebooks, in solution mode")
    parser.add_argument("--fresh", action="store_true", help="read every page again")
    parser.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    args = parser.parse_args()
    pages = []
    for text in args.page:
        path = Path(text).resolve()
        if not path.is_file() or ROOT not in path.parents:
            parser.error(f"{text}: no such page below {ROOT.name}/")
        pages.append(path.relative_to(ROOT).with_suffix("").as_posix())
    return build(pages, args.execute, args.fresh, args.quiet)


def build(pages: list[str], execute: bool, fresh: bool = False, quiet: bool = False) -> int:
    """Build `pages` (names without suffix) into _build/page/NAME/html."""
    from jupyter_book.config import get_final_config
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml", cli_config={"latex_individualpages": False}, sourcedir=ROOT
    )
    name = pages[0].rpartition("/")[2] if len(pages) > 1 else pages[0].replace("/", "-")
    out = ROOT / "_build" / "page" / name
    out.mkdir(parents=True, exist_ok=True)
    chosen = [*pages, *(page for page in ("book/glossary", "book/references") if page not in pages)]
    toc = out / "_toc.yml"
    lines = ["format: jb-book", f"root: {chosen[0]}", "parts:", "- caption: Pages", "  chapters:"]
    toc.write_text("\n".join([*lines, *(f"  - file: {page}" for page in chosen[1:])]) + "\n")
    config.update(
        infero_draft=True,
        external_toc_path=str(toc),
        external_toc_exclude_missing=True,
        nb_execution_mode="cache" if execute else "off",
        suppress_warnings=["infero.other", *config.get("suppress_warnings", [])],
    )
    with patch_docutils(str(ROOT)), docutils_namespace():
        app = Sphinx(
            srcdir=str(ROOT), confdir=None, outdir=str(out / "html"),
            doctreedir=str(out / "doctrees"), buildername="html", confoverrides=config,
            freshenv=fresh, status=None if quiet else sys.stdout, warningiserror=False,
        )  # fmt: skip
        app.build(False, [str(next(ROOT.glob(f"{page}.*"))) for page in chosen])
    for page in pages:
        print(f"page: {out / 'html' / page}.html")
    return int(app.statuscode)


if __name__ == "__main__":
    raise SystemExit(main())
