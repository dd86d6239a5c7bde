"""Triton, or its interpreter: the one module that imports it, and decides how kernels run.

On a machine with a GPU a kernel is compiled. Without one it is interpreted, slowly and on CPU
tensors, which is how the tests and the labs run it on a laptop. Triton reads the variable
TRITON_INTERPRET when a kernel is defined, so it is set here, before the first `triton.jit`.
Every module of kernels takes `triton` and `tl` from here. Chapter 13 explains the language
(Tillet, Kung and Cox, MAPL 2019).
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import torch

from infero.errors import InferoError


class TritonMissing(InferoError):
    """Triton cannot be used here."""


def _interpreted() -> bool:
    asked = os.environ.get("TRITON_INTERPRET")
    return not torch.cuda.is_available() if asked is None else asked not in ("", "0")


INTERPRETED = _interpreted()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"

try:
    import triton
    import triton.language as tl
    from triton.language.extra import libdevice
except ImportError:  # macOS and Windows have no Triton
    triton: Any = None  # type: ignore[no-redef]
    tl: Any = None  # type: ignore[no-redef]
    libdevice: Any = None  # type: ignore[no-redef]


def available() -> bool:
    """Whether Triton is installed."""
    return triton is not None


def need() -> None:
    """Raise TritonMissing, with the remedy, where kernels cannot run."""
    if triton is None:
        raise TritonMissing(f"Triton is not installed ({sys.platform}): it is a Linux package. On "
                            "Windows use WSL2, on a Mac do this lab on Colab; everything else of "
                            "infero runs without it.")
    if not INTERPRETED:
        return
    import numpy as np

    old = tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 7)
    new = tuple(int(part) for part in np.__version__.split(".")[:2]) >= (2, 4)
    if old and new:
        raise TritonMissing(f"The interpreter of Triton {triton.__version__} fails on loops with "
                            f"numpy {np.__version__}: pip install 'triton>=3.7' or 'numpy<2.4'.")


@functools.cache
def capability(device: torch.device | str = "cuda") -> tuple[int, int]:
    """Compute capability of a GPU; (0, 0) for a CPU."""
    if torch.device(device).type != "cuda":
        return (0, 0)
    return torch.cuda.get_device_capability(device)


def dots(device: torch.device | str) -> bool:
    """Whether Triton multiplies matrices on this device as fast as its tensor cores can.

    Below compute capability 8.0 it has no path to them (a T4, say): products go to PyTorch.
    """
    return capability(device) >= (8, 0)


def power_of_two(n: int) -> int:
    """The smallest power of two that holds n: what a block of a kernel has to be."""
    return 1 << (n - 1).bit_length()
