"""Browsers and sites for the tests of the book."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

EXPLORER = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<title>{name}</title></head><body>
<div data-explorer="{name}"><div class="infero-explorer-stage" hidden></div>
<details><summary>table</summary>{table}</details>
<script type="module" src="{name}.js"></script></div></body></html>"""
SITE = Path(os.environ.get("INFERO_SITE", ROOT / "_build" / "html"))
REQUIRED = bool(os.environ.get("INFERO_REQUIRE_SITE"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--disable-dev-shm-usage", "--no-first-run"]  # fmt: skip


def missing(reason: str) -> None:
    """Skip for this reason, or fail where the site and the browser are promised to be there."""
    if REQUIRED:
        pytest.fail(f"{reason} (INFERO_REQUIRE_SITE is set)")
    pytest.skip(reason)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """`serve(folder)` gives the address at which the folder is served."""
    servers = []

    def start(folder: Path) -> str:
        handler = partial(Quiet, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for the session: the system's, else the one that playwright installed."""
    api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("INFERO_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with api.sync_playwright() as play:
        try:
            launched = play.chromium.launch(executable_path=path, args=FLAGS)
        except Exception as error:
            missing(f"no Chromium could be started: {str(error).splitlines()[0]}")
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def site(serve: Callable[[Path], str]) -> str:
    """The address of the built site."""
    if not (SITE / "index.html").is_file():
        missing("no site is built; run `make site` first")
    return serve(SITE)


@pytest.fixture(scope="session")
def address(serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a folder with a page for each explorer, NAME.html."""
    folder = tmp_path_factory.mktemp("explorers")
    explorers.publish(folder)
    for program in explorers.EXPLORERS.glob("*.py"):
        name = program.stem
        table = explorers.program(name).fallback()
        page = EXPLORER.format(name=name, table=table)
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return serve(folder)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page of the explorers' folder, on which no script may fail."""
    opened = browser.new_page(base_url=address)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    opened.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    yield opened
    opened.close()
    real = [text for text in errors if "ERR_FAILED" not in text]  # a request that a test cut off
    assert not real, real


def open_explorer(page: Any, state: str = "", *, name: str) -> None:
    """Open an explorer's page afresh, `state` being what follows in the address."""
    page.goto("about:blank")
    page.goto(f"/{name}.html{state}")
    page.wait_for_selector('[data-ready="true"]')
