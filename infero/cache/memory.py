"""How much memory the KV cache takes, and how much there is.

Chapter 7 derives the size of a token and has the reader write `kv_bytes_per_token`; the engine asks
here how many blocks fit into its budget. Bytes are bytes: GiB and GB are for printing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from infero.errors import ParameterError

if TYPE_CHECKING:
    from infero.roofline import Shape

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def kv_bytes_per_token(config: Shape, bytes_per_element: int = 2) -> int:
    """Bytes that one token occupies in the KV cache: its keys and values in every layer.

    A layer keeps one key and one value vector of `head_dim` numbers for each of its KV heads,
    `bytes_per_element` bytes a number. Returns a whole number of bytes (int).
    """
    numbers = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return numbers * bytes_per_element


def blocks_that_fit(config: Shape, block_size: int, bytes_per_element: int,
                    budget_bytes: int) -> int:
    """Whole blocks of `block_size` tokens that fit into `budget_bytes`; 0 where none does."""
    return max(0, budget_bytes) // (block_size * kv_bytes_per_token(config, bytes_per_element))


def free_memory_bytes(device: torch.device | str) -> int:
    """Bytes that can still be allocated on a device.

    On a GPU what the driver calls free and what PyTorch holds without using it. On a CPU what the
    system can give without swapping, and no more than a container's limit leaves.
    """
    device = torch.device(device)
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    free = system_memory_bytes()
    limit = container_memory_bytes()
    return free if limit is None else min(free, limit)


def system_memory_bytes() -> int:
    """Main memory available to new allocations, from psutil, Linux or, roughly, POSIX."""
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]

        return int(psutil.virtual_memory().available)
    except ImportError:
        pass
    if MEMINFO.is_file():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:  # macOS says how much memory there is, not how much is free: take half
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        raise ParameterError(
            "This system does not say how much memory is free; install psutil, or give the KV "
            "cache's size yourself (kv_memory_bytes or num_blocks)."
        ) from None


def container_memory_bytes() -> int | None:
    """What a container's memory limit leaves (cgroup v2, then v1); None where there is none."""
    for limit, used, key in (
        (CGROUP / "memory.max", CGROUP / "memory.current", "inactive_file"),
        (CGROUP / "memory/memory.limit_in_bytes", CGROUP / "memory/memory.usage_in_bytes",
         "total_inactive_file"),
    ):
        try:
            most, now = limit.read_text().strip(), int(used.read_text())
            lines = (limit.parent / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        if not most.isdecimal():  # "max": no limit
            return None
        pages = dict(line.split()[:2] for line in lines if line.strip())
        return max(0, int(most) - now + int(pages.get(key, 0)))  # file pages can be dropped
    return None
