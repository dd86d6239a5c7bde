"""What surrounds the pages: static files, addresses, source pages, sitemap, llms.txt, 404.

Everything a page loads lies in the site itself: no request leaves the host. `repository.url` in
_config.yml, written by `make set-repo`, turns on launch buttons and links to the repository.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from infero_book import explorers

ROOT = Path(__file__).resolve().parents[3]
LOCAL = "http://127.0.0.1:8000/"  # where `make book` serves the site
COLAB = "https://colab.research.google.com"
MATHJAX = {
    # The menu would offer speech and renderers that are not shipped; screen readers get MathML.
    "options": {"enableMenu": False, "enableAssistiveMml": True},
}


def _configure(app: Sphinx, config: Config) -> None:
    config.html_static_path = [str(ROOT / "book" / "_static")]
    app.add_css_file("infero.css", priority=900)
    app.add_js_file("infero.js", loading_method="defer")
    # Relative paths would be taken from conf.py's folder, which need not be the repository's root.
    if "bibtex_bibfiles" in config:
        config.bibtex_bibfiles = [str(ROOT / name) for name in config.bibtex_bibfiles]
    config.html_favicon = str(ROOT / "book" / "_static" / "favicon.svg")
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.mathjax3_config = _merged(getattr(config, "mathjax3_config", None) or {}, MATHJAX)
    config.html_context = {"default_mode": "auto", **config.html_context}
    config.nb_ipywidgets_js = {}  # no widgets, so nothing from a CDN
    config.html_baseurl = config.html_baseurl or LOCAL
    config.ogp_site_url = config.html_baseurl
    config.ogp_image = "_static/og.png"
    config.ogp_image_alt = "Infero: build the engine behind a language model"
    options = config.html_theme_options
    options["logo"] = {
        "image_light": "book/_static/logo-light.svg",
        "image_dark": "book/_static/logo-dark.svg",
        "alt_text": "Infero, home",
    }
    options["show_navbar_depth"] = 2
    options["use_fullscreen_button"] = False
    options.setdefault("launch_buttons", {})
    chosen = repository()
    for key in ("repository_url", "repository_branch", "launch_buttons", "use_repository_button"):
        options.pop(key, None)
    if chosen:
        options["repository_url"] = chosen["url"]
        options["repository_branch"] = chosen["branch"]
        options["use_repository_button"] = True
        if "github.com/" in chosen["url"]:
            options["launch_buttons"] = {"colab_url": COLAB}


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in more.items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if nested else value
    return out


@cache
def repository(root: Path = ROOT) -> dict[str, str]:
    """`{"url", "branch"}` as _config.yml names them; empty until `make set-repo`."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")) or {}
    block = config.get("repository") or {}
    url = str(block.get("url") or "").rstrip("/").removesuffix(".git")
    return {"url": url, "branch": str(block.get("branch") or "main")} if url else {}


def colab_url(path: str) -> str:
    """Where Colab opens a notebook of the repository; "" before there is one on GitHub."""
    chosen = repository()
    if not chosen or "github.com/" not in chosen["url"]:
        return ""
    project = chosen["url"].partition("github.com/")[2]
    return f"{COLAB}/github/{project}/blob/{chosen['branch']}/{path}"


# ---------------------------------------------------------------- source pages


def source_url(builder: Any, path: str, first: int, last: int) -> str:
    """Where quoted code is shown whole: in the repository, else in a page of this site."""
    chosen = repository()
    if chosen:
        return f"{chosen['url']}/blob/{chosen['branch']}/{path}#L{first}-L{last}"
    page = "source/" + path.removesuffix(".py")
    return f"{builder.get_relative_uri(builder.current_docname, page)}#L-{first}"


def _source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each module that a chapter quotes, so that its link leads somewhere."""
    yield "404", {"title": "No such page", "body": NOT_FOUND, "infero_plain": True}, "page.html"
    if repository():
        return
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    for path in sorted(getattr(app.env, "infero_sources", ())):
        code = (ROOT / path).read_text(encoding="utf-8")
        formatter = HtmlFormatter(lineanchors="L", linenos=False, anchorlinenos=False)
        listing = highlight(code, PythonLexer(), formatter)
        listing = re.sub(r'<a id="(L-\d+)"[^>]*></a>', r'<span id="\1"></span>', listing)
        listing = listing.replace("<pre>", '<pre tabindex="0">', 1)
        body = (
            f"<h1><code>{html.escape(path)}</code></h1><p>The engine's file, whole. It holds the "
            "answers to the labs.</p>"
            f'<div class="highlight-python notranslate">{listing}</div>'
        )
        page = "source/" + path.removesuffix(".py")
        yield page, {"title": path, "body": body, "infero_plain": True}, "page.html"


NOT_FOUND = """<h1>No such page</h1>
<p>The address leads nowhere on this site. The page may have moved.</p>
<p><a href="book/index.html">The book's first page</a> lists every chapter and lab;
<a href="search.html">the search</a> looks through all of them.</p>
"""


# ---------------------------------------------------------------- head of each page


def description(app: Sphinx, docname: str) -> str:
    """A page's one sentence: its front matter's, else the start of its first paragraph."""
    meta = app.env.metadata.get(docname, {})
    if meta.get("description"):
        return str(meta["description"])
    tree = app.env.get_doctree(docname)
    for paragraph in tree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 40:
            sentence = text[:160].rpartition(". ")[0] or text[:157]
            return sentence.rstrip(". ") + "."
    return ""


def _describe(app: Sphinx, env: Any) -> list[str]:
    """Give each page its description; name the pages that show which other pages exist."""
    for docname in env.found_docs:
        env.metadata[docname]["og:description"] = description(app, docname)
    return [page for page in env.found_docs if page == app.config.root_doc or _numbered(page)]


def _numbered(page: str) -> bool:
    return page.rpartition("/")[2][:2].isdigit()


def _head(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    text = (app.env.metadata.get(page) or {}).get("og:description")
    if text:
        content = html.escape(text, quote=False).replace('"', "&quot;")
        tag = f'<meta name="description" content="{content}" />\n'
        context["metatags"] = context.get("metatags", "") + tag
    if page == "404":
        base = urlparse(app.config.html_baseurl).path or "/"
        context["metatags"] = f'<base href="{base}" />\n' + context.get("metatags", "")
    if context.get("body"):  # roles that assistive technology has since dropped
        body = re.sub(r' role="doc-(biblioentry|backlink)"', "", context["body"])
        context["body"] = body.replace('<div role="list" class="citation-list">', "<div>")
    # Live code through thebe would load it from elsewhere; its configuration comes with the theme.
    files = context.get("script_files", [])  # the builder's own list: others still add to it
    files[:] = [file for file in files if not _is_thebe(file)]


def _name_toggles(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """The sidebar's arrows that open a chapter's lab have no words; give them some."""
    made = context.get("generate_toctree_html")
    if made is None:
        return

    def named(*args: Any, **options: Any) -> str:
        return str(made(*args, **options)).replace("<summary>", '<summary aria-label="Its lab">')

    context["generate_toctree_html"] = named


def _is_thebe(file: Any) -> bool:
    body = (getattr(file, "attributes", None) or {}).get("body") or ""
    return "THEBE" in body or "thebe" in str(getattr(file, "filename", file) or "")


# ---------------------------------------------------------------- files beside the pages

INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Infero</title>
<meta http-equiv="refresh" content="0; url={page}"><link rel="canonical" href="{page}">
</head><body><main><h1>Infero</h1><p><a href="{page}">To the book</a></p></main></body></html>
"""


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    root = app.config.root_doc
    (out / "index.html").write_text(INDEX.format(page=f"{root}.html"), encoding="utf-8")
    sources = {"source/" + p.removesuffix(".py") for p in getattr(app.env, "infero_sources", ())}
    kept = {*app.env.found_docs, *(sources if not repository() else ()), "index", "404", "search",
            "genindex"}  # fmt: skip
    for path in out.rglob("*.html"):  # pages of an earlier table of contents
        name = path.relative_to(out).as_posix().removesuffix(".html")
        if name not in kept and not name.startswith("_static/"):
            path.unlink()
    pages = [root, *(page for page in sorted(app.env.found_docs) if page != root)]
    base = app.config.html_baseurl.rstrip("/") + "/"
    urls = "".join(f"<url><loc>{html.escape(base + page)}.html</loc></url>\n" for page in pages)
    (out / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n',
        encoding="utf-8",
    )
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n")
    (out / "llms.txt").write_text(llms(app, pages, base), encoding="utf-8")
    explorers.publish(out / "_static" / "explorers")


def llms(app: Sphinx, pages: list[str], base: str) -> str:
    """The site's table of contents for language models (llmstxt.org): title, sentence, links."""
    env = app.env
    lines = [f"# {app.config.project}", "", f"> {description(app, pages[0])}", ""]
    groups = {"Chapters and labs": [], "Reference": []}  # type: dict[str, list[str]]
    for page in pages[1:]:
        title = env.titles[page].astext()
        suffix = Path(env.doc2path(page)).suffix
        text = f"- [{title}]({base}_sources/{page}{suffix}): {description(app, page)}"
        groups["Chapters and labs" if _numbered(page) else "Reference"].append(text)
    for name, items in groups.items():
        if items:
            lines += [f"## {name}", "", *items, ""]
    return "\n".join(lines)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", _configure, priority=100)
    app.connect("html-collect-pages", _source_pages)
    app.connect("env-updated", _describe)
    app.connect("html-page-context", _head, priority=400)
    app.connect("html-page-context", _name_toggles, priority=900)
    app.connect("build-finished", _finish, priority=400)
