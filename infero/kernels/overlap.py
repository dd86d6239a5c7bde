"""Starting a kernel while the one before it ends: programmatic dependent launch.

From compute capability 9.0 on, a kernel may be put on the card before its predecessor is done: it
prepares itself, waits for the predecessor's results, and works. Every kernel of a decode step says
at its start that the next may come (`gdc_launch_dependents`) and then waits (`gdc_wait`), which
hides most of the gap between two launches. Chapter 16 measures what that is worth.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from infero.kernels import language

PDL = True  # False to measure what it is worth; `options.cache_clear()` afterwards


@functools.cache
def options(device: torch.device) -> dict[str, Any]:
    """Launch options, and the constant PDL, for a kernel that starts with the two instructions."""
    able = (PDL and not language.INTERPRETED and language.capability(device) >= (9, 0)
            and hasattr(language.tl.extra.cuda, "gdc_wait"))
    return {"PDL": True, "launch_pdl": True} if able else {"PDL": False}
