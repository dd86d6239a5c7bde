"""What a warp's addresses cost: 32-byte sectors of memory, and banks of shared memory.

A GPU moves memory in sectors of 32 bytes, four to a line of 128. The 32 threads of a warp load
together, and the card fetches every sector that any of them touches: the fewer sectors, the more
of what was moved is used. Shared memory is cut into 32 banks of 4 bytes that work side by side;
threads that want different words of one bank wait for each other. Chapter 13; NVIDIA, CUDA C++
Best Practices Guide, on coalesced access and shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence

SECTOR_BYTES = 32
LINE_BYTES = 128
WARP = 32
BANKS = 32
BANK_BYTES = 4


def sectors(indexes: Sequence[int], element_bytes: int) -> int:
    """How many 32-byte sectors one load of a warp touches.

    indexes: which element each active thread asks for, in any order and perhaps some of them twice.
    Element i covers the bytes from i * element_bytes up to (i + 1) * element_bytes, and may lie
    across a sector's edge or cover several. A sector that several threads want is moved once.
    """
    touched: set[int] = set()
    for i in indexes:
        first = i * element_bytes // SECTOR_BYTES
        last = ((i + 1) * element_bytes - 1) // SECTOR_BYTES
        touched.update(range(first, last + 1))
    return len(touched)


def lines(indexes: Sequence[int], element_bytes: int) -> int:
    """How many 128-byte lines the load touches: the unit that caches keep tags for."""
    return len({byte // LINE_BYTES for byte in _ends(indexes, element_bytes)})


def efficiency(indexes: Sequence[int], element_bytes: int) -> float:
    """Bytes the warp asked for, each element once, over the bytes that were moved for it."""
    asked = len(set(indexes)) * element_bytes
    return asked / (sectors(indexes, element_bytes) * SECTOR_BYTES)


def bank_conflicts(indexes: Sequence[int], element_bytes: int = 4) -> int:
    """Rounds a warp's access to shared memory takes: the most different words in one bank.

    1 means no conflict. Threads that want the same word get it in the same round.
    """
    words = {byte // BANK_BYTES for byte in _ends(indexes, element_bytes)}
    busy: dict[int, int] = {}
    for word in words:
        busy[word % BANKS] = busy.get(word % BANKS, 0) + 1
    return max(busy.values())


def _ends(indexes: Sequence[int], element_bytes: int) -> set[int]:
    """Every byte whose sector, line or word the elements touch: their 4-byte steps."""
    return {i * element_bytes + at for i in indexes for at in range(element_bytes)}


def bandwidth(indexes: Sequence[int], element_bytes: int, limit_bytes_per_s: float) -> float:
    """Useful bytes a second when every warp loads in this pattern from memory at its limit.

    The estimate of chapter 13: memory moves whole sectors at its limit, whatever is used of them.
    """
    return limit_bytes_per_s * efficiency(indexes, element_bytes)
