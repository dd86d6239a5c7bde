"""On what a measurement was made: device, driver, software and commit.

Used by `infero.results` when it writes a file; chapter 3 says why each of them matters.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

_NOISE = re.compile(
    r"\((R|TM|C)\)|\b(NVIDIA|AMD Instinct|GeForce|Tesla|Quadro|Graphics|CPU|Processor)\b|@.*"
    r"|\b\d+[ -]?(GB|Core)\b|\bHBM\w*|\bSXM\d?\b|\b(OAM|with)\b", re.I,
)  # fmt: skip


def slug(name: str, cores: int | None = None) -> str:
    """The folder of a device: "NVIDIA H100 80GB HBM3" → h100, "AMD EPYC" on 2 cores → amd-epyc-2c.

    Cards of one name that differ in speed stay apart: "NVIDIA H100 PCIe" → h100-pcie.
    """
    text = re.sub(r"[^a-z0-9]+", "-", _NOISE.sub(" ", name).lower()).strip("-") or "device"
    return f"{text}-{cores}c" if cores else text


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device_info(kind: str | None = None) -> dict[str, Any]:
    """The device a measurement ran on, named as its driver names it."""
    import torch

    if kind is None:
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        props = torch.cuda.get_device_properties(0)
        return {"slug": slug(props.name), "kind": "cuda", "name": props.name, "driver": _driver(),
                "memory_bytes": props.total_memory, "cores": props.multi_processor_count}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = cpu_name()
    return {"slug": slug(name, cores), "kind": "cpu", "name": name, "driver": None,
            "memory_bytes": memory, "cores": cores}


def _driver() -> str | None:
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def software() -> dict[str, str | None]:
    """Versions that a measurement depends on."""
    from importlib.metadata import PackageNotFoundError, version

    import infero

    def version_of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    import torch

    return {"python": platform.python_version(), "torch": torch.__version__,
            "triton": version_of("triton"), "infero": infero.__version__}


def commit() -> str:
    """The checkout's commit, with "+" where the code differs; $INFERO_COMMIT overrides it."""
    if given := os.environ.get("INFERO_COMMIT"):
        return given
    here = Path(__file__).resolve().parent.parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True,
                              timeout=20, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "-uno", "--", "infero", "benchmarks") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
