"""Builds the book into _build/html and serves it: `make site`, `make book`.

    .venv/bin/python tools/site.py build
    .venv/bin/python tools/site.py book --port 8000      # build, then serve
    .venv/bin/python tools/site.py sphinx                # the same pages by plain sphinx-build

Warnings are errors. All labs run in solution mode. Nothing is built when no file that the site
could depend on has changed since the last good build.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
STAMP = ROOT / "_build" / "site.state"
NOT_INPUT = ("tests/", ".ci/", ".github/", "my_infero/", "_build/", ".venv/")


def inputs() -> list[Path]:
    """Every file that the site could depend on: what git tracks or would, less the tests."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        listed = done.stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive, not a clone
        listed = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file()]
        listed = [
            name
            for name in listed
            if not any(part.startswith(".") or part == "__pycache__" for part in Path(name).parts)
        ]
    names = sorted(name for name in set(listed) if name and not name.startswith(NOT_INPUT))
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def state() -> str:
    """A hash of the inputs' names and contents, and of the model in use."""
    digest = hashlib.sha256(os.environ.get("INFERO_MODEL", "").encode())
    for path in inputs():
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build(force: bool = False) -> int:
    """Build unless nothing changed; 0 if the site is good."""
    wanted = state()
    good = STAMP.is_file() and STAMP.read_text(encoding="utf-8").strip() == wanted
    if good and not force and (HTML / "index.html").is_file():
        print("The site is up to date.", flush=True)
        return 0
    if not STAMP.is_file():  # the last build broke off: what it left cannot be trusted
        for left in (HTML, HTML.parent / ".doctrees"):
            shutil.rmtree(left, ignore_errors=True)
    STAMP.unlink(missing_ok=True)
    begin_s = time.monotonic()
    main = "from jupyter_book.cli.main import main; main()"  # the package has no __main__
    command = [sys.executable, "-c", main, "build", str(ROOT), "-W", "-n", "--keep-going"]
    environ = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ  # for the labs: see tools/test.py
    done = subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, env=environ)
    code = done.returncode
    if code != 0:
        if shutil.disk_usage(ROOT).free < 2**26:
            return fail("The disk is full: free some space and run it again.")
        return fail("The site was not built: the first warning or error above says where.")
    check = [sys.executable, "book/_ext/check_site.py", str(HTML)]
    if subprocess.run(check, cwd=ROOT, check=False).returncode != 0:
        return 1
    STAMP.write_text(wanted + "\n", encoding="utf-8")
    seconds = time.monotonic() - begin_s
    print(f"The site is built ({seconds:.0f} s): {os.path.relpath(HTML)}/index.html", flush=True)
    return 0


def sphinx() -> int:
    """Build by plain sphinx-build, from the conf.py that Jupyter Book generates: the way out."""
    conf, out = ROOT / "_build" / "sphinx" / "conf", ROOT / "_build" / "sphinx" / "html"
    main = "from jupyter_book.cli.main import main; main()"
    made = subprocess.run(
        [sys.executable, "-c", main, "config", "sphinx", str(ROOT)],
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if made.returncode != 0 or not (ROOT / "conf.py").is_file():
        return fail("Jupyter Book wrote no conf.py: see above.")
    conf.mkdir(parents=True, exist_ok=True)
    shutil.move(ROOT / "conf.py", conf / "conf.py")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-n",
        "--keep-going",
        "-q",
        "-c",
        str(conf),
        str(ROOT),
        str(out),
    ]
    environ = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "book" / "_ext"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    if (
        subprocess.run(
            command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, env=environ
        ).returncode
        != 0
    ):
        return fail("sphinx-build did not build the site: the first warning above says where.")
    print(f"sphinx-build made the same pages: {os.path.relpath(out)}/index.html", flush=True)
    return 0


def fail(words: str) -> int:
    print(words, file=sys.stderr)
    return 1


class Handler(http.server.SimpleHTTPRequestHandler):
    """The built pages, the book's own 404 page, and no line a request."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = HTML / "404.html"
        if code != 404 or not page.is_file():
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


def port_taken(port: int) -> str:
    """Why the port cannot be had, in one line, or nothing."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OverflowError:
            return f"{port} is no port: take one from 1024 to 65535, for example PORT=8001."
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                return f"Port {port} is in use: `make book PORT={port + 1}` takes another."
            return f"Port {port} cannot be used ({problem.strerror}): try PORT=8001."
    return ""


def serve(port: int) -> int:
    """Serve the built site until Ctrl-C."""
    if problem := port_taken(port):
        return fail(problem)
    handler = partial(Handler, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(
            f"\nRead the book at http://127.0.0.1:{server.server_address[1]}/   (Ctrl-C stops it)",
            flush=True,
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/site.py", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("action", choices=["build", "serve", "book", "sphinx"])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    args = parser.parse_args(argv)
    if args.action == "build":
        return build(args.force)
    if args.action == "sphinx":
        return sphinx()
    if problem := port_taken(args.port):  # say so before some minutes of building
        return fail(problem)
    return (args.action == "book" and build(args.force)) or serve(args.port)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped; `make book` goes on where it was.", file=sys.stderr)
        sys.exit(130)
