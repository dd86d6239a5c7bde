"""The built site in a browser: every page, light and dark, wide and narrow, mouse and keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("INFERO_SITE", ROOT / "_build" / "html"))
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


def every_page() -> list[str]:
    """Each page of the built site but the one that only leads to the book's first."""
    found = [path.relative_to(SITE) for path in sorted(SITE.rglob("*.html"))]
    names = [path.as_posix() for path in found if "_static" not in path.parts]
    return [name for name in names if name != "index.html"] or ["book/index.html"]


class Watch:
    """Collects what a page does that it must not: errors, and requests that leave the host."""

    def __init__(self, page: Any, host: str) -> None:
        self.found: list[str] = []
        self.host = host
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("requestfailed", lambda r: self.found.append(f"failed: {r.url}"))
        page.on("response", self._response)
        page.route("**/*", self._route)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"console: {message.text}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.found.append(f"{response.status}: {response.url}")

    def _route(self, route: Any) -> None:
        parts = urlparse(route.request.url)
        if parts.scheme in ("http", "https", "ws") and parts.netloc != self.host:
            self.found.append(f"leaves the host: {route.request.url}")
            route.abort()
        else:
            route.continue_()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(browser: Any, site: str, scheme: str, size: dict[str, int]) -> tuple[Any, Watch]:
    context = browser.new_context(
        base_url=site, color_scheme=scheme, viewport=size, reduced_motion="reduce"
    )
    page = context.new_page()
    return page, Watch(page, urlparse(site).netloc)


def settle(page: Any) -> None:
    """Wait until mathematics is set and explorers are drawn."""
    page.wait_for_load_state("load")
    if page.query_selector(".math"):
        page.wait_for_selector("mjx-container", state="attached")
        page.evaluate("MathJax.startup.promise")
    for place in page.query_selector_all("[data-explorer]"):
        place.wait_for_selector(".infero-explorer-stage svg")
    page.wait_for_timeout(50)


@pytest.fixture
def light(browser: Any, site: str) -> Iterator[Any]:
    page, _ = opened(browser, site, "light", DESK)
    yield page
    page.context.close()


WIDE = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  const out = [...document.querySelectorAll("main *")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > room + 1;
  });
  return [`the page is ${document.documentElement.scrollWidth} wide`,
    ...out.slice(0, 5).map((e) => e.outerHTML.slice(0, 120))];
}"""
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}


def violations(page: Any, options: dict[str, Any]) -> list[str]:
    """What axe-core finds serious or critical, in words."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # preload: axe would fetch the imports of style sheets itself, from the wrong folder.
    found = axe.run(page, options={"preload": False, **options}).response["violations"]
    return [
        f"{v['id']} ({v['impact']}): {node['target']} {node['failureSummary'][:200]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"][:3]
    ]


@pytest.mark.parametrize("name", every_page())
def test_page(browser: Any, site: str, name: str) -> None:
    """No error, no request that leaves the host, accessible in both themes, fits a phone.

    The page is loaded once: the dark theme and the phone follow by emulation, and of axe's rules
    only those on colour are run again in the dark.
    """
    page, watch = opened(browser, site, "light", DESK)
    try:
        page.goto(f"/{name}")
        settle(page)
        assert page.title()
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        bad = violations(page, {})
        assert not bad, "\n".join(bad)
        page.emulate_media(color_scheme="dark")
        page.wait_for_selector('html[data-theme="dark"]')
        bad = violations(page, COLOURS)
        assert not bad, "in the dark:\n" + "\n".join(bad)
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(100)
        wide = page.evaluate(WIDE)
        assert not wide, wide
        assert not watch.found, watch.found
    finally:
        page.context.close()


@pytest.mark.parametrize("name", ["book/index.html", "search.html"])
def test_page_loads_dark_and_on_a_phone(browser: Any, site: str, name: str) -> None:
    page, watch = opened(browser, site, "dark", PHONE)
    page.goto(f"/{name}")
    settle(page)
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.evaluate(WIDE) == [] and watch.found == []
    page.context.close()


def test_figures_keep_their_size_on_a_phone_and_scroll_by_key(browser: Any, site: str) -> None:
    page, watch = opened(browser, site, "light", PHONE)
    page.goto("/book/index.html")
    settle(page)
    box = page.locator(".infero-scroll").first
    assert box.evaluate("(e) => e.scrollWidth") > 500
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.infero-scroll').scrollLeft > 0")
    assert violations(page, {}) == [] and watch.found == []
    page.context.close()


def test_search_finds_roofline(light: Any) -> None:
    light.goto("/search.html?q=roofline")
    light.wait_for_selector("#search-results li a")
    assert "roofline" in light.inner_text("#search-results").lower()


def test_search_opens_by_key_and_leads_to_results(light: Any) -> None:
    light.goto("/book/index.html")
    settle(light)
    light.keyboard.press("Control+k")
    light.wait_for_selector("dialog[open] input, .search-button__search-container input")
    light.keyboard.type("roofline")
    light.keyboard.press("Enter")
    light.wait_for_selector("#search-results li a")


def test_keyboard_reaches_the_main_parts(light: Any) -> None:
    light.goto("/book/index.html")
    settle(light)
    reached = []
    for _ in range(30 + 5 * len(light.query_selector_all(".infero-chapters li"))):  # 3 a chapter
        light.keyboard.press("Tab")
        reached.append(
            light.evaluate(
                """() => {
                  const e = document.activeElement;
                  const part = ["#pst-skip-link", ".bd-sidebar-primary", ".bd-header-article",
                    ".infero-actions", ".infero-map", ".infero-chapters", ".bd-sidebar-secondary"]
                    .find((s) => e.closest(s));
                  return part ?? e.tagName;
                }"""
            )
        )
    chapters = light.query_selector(".infero-map a") is not None
    wanted = [".bd-sidebar-primary", ".bd-header-article", ".infero-actions"]
    wanted += [".infero-map", ".infero-chapters"] if chapters else []
    assert [part for part in wanted if part not in reached] == []
    assert "skip" in reached[0] or reached[0] == "A"


def test_theme_can_be_switched_by_key(light: Any) -> None:
    light.goto("/book/index.html")
    settle(light)
    button = light.query_selector(".bd-header-article .theme-switch-button")
    button.focus()
    before = light.get_attribute("html", "data-mode")
    light.keyboard.press("Enter")
    assert light.get_attribute("html", "data-mode") != before


def test_figures_follow_the_theme(browser: Any, site: str, scheme: str) -> None:
    page, _ = opened(browser, site, scheme, DESK)
    page.goto("/book/index.html")
    settle(page)
    shown = page.evaluate(
        """() => [...document.querySelectorAll("figure.infero-plot img")]
          .filter((e) => e.getBoundingClientRect().width > 0).map((e) => e.className)"""
    )
    assert shown and all(f"infero-{scheme}" in name for name in shown)
    page.context.close()


def test_mathematics_is_set(light: Any) -> None:
    light.goto("/book/glossary.html")
    settle(light)
    assert light.query_selector("mjx-container") is not None


def test_root_leads_to_the_book(light: Any) -> None:
    light.goto("/")
    light.wait_for_url("**/book/index.html")


def test_every_page_describes_itself() -> None:
    if not (SITE / "index.html").is_file():
        pytest.skip("no site is built; run `make site` first")
    pages = [p for p in every_page() if p.split("/")[0] in ("book", "labs")]
    seen: dict[str, str] = {}
    for name in pages:
        text = (SITE / name).read_text(encoding="utf-8")
        found = re.search(r'<meta name="description" content="([^"]+)"', text)
        assert found and 20 < len(found.group(1)) < 320, name
        assert found.group(1) not in seen, f"{name} has the description of {seen[found.group(1)]}"
        seen[found.group(1)] = name
        assert f'property="og:description" content="{found.group(1)}"' in text, name
        assert 'property="og:title"' in text and 'property="og:url"' in text, name
    listed = (SITE / "llms.txt").read_text(encoding="utf-8")
    sitemap = (SITE / "sitemap.xml").read_text(encoding="utf-8")
    for name in pages:
        assert f"/{name}</loc>" in sitemap
        if name != "book/index.html":
            assert f"_sources/{name.removesuffix('.html')}" in listed


def test_nothing_of_the_repository_before_it_is_named() -> None:
    if not (SITE / "index.html").is_file():
        pytest.skip("no site is built; run `make site` first")
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    named = re.search(r"^repository:", config, re.MULTILINE) is not None
    for name in every_page():
        text = (SITE / name).read_text(encoding="utf-8")
        if name.startswith("labs/"):
            assert ("colab.research.google.com" in text) == named, name
        if not named:
            assert "executablebooks/jupyter-book" not in text, name


def test_chapters_carry_the_numbers_of_their_files() -> None:
    chapters = sorted((SITE / "book").glob("[0-9][0-9]_*.html"))
    assert chapters
    for path in chapters:
        number, text = int(path.name[:2]), path.read_text(encoding="utf-8")
        assert f"Fig. {number}.1" in text, f"{path.name}: the figures have another number"
        assert f"<title>{number}. " in text, f"{path.name}: the chapter has another number"
