"""The host tier: a second, larger and slower home for blocks that the pool has to give up.

It is a victim cache. When the pool takes a block that still holds a prefix, the block is copied
here under the same digest; a prefix lookup that has run out of blocks in the pool goes on here and
copies what it finds back. Preemption by swapping is nothing else: the victim's blocks are released,
and what is not found in the pool on its return is found here. So only blocks that really were
overwritten ever travel. Chapters 8 and 11 explain it; chapter 9 offloads with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class HostTier:
    """`num_blocks` host blocks by digest, least recently used first. Bookkeeping alone."""

    num_blocks: int
    block_of: OrderedDict[bytes, int] = field(default_factory=OrderedDict)

    def put(self, digest: bytes) -> int | None:
        """The host block to copy to, or None if there is nothing to copy.

        Its previous content, the least recently used prefix, is forgotten.
        """
        if self.num_blocks == 0:
            return None
        if digest in self.block_of:  # the same content is here already
            self.block_of.move_to_end(digest)
            return None
        free = len(self.block_of) < self.num_blocks
        block = len(self.block_of) if free else self.block_of.popitem(last=False)[1]
        self.block_of[digest] = block
        return block

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Host blocks of the longest leading run of `hashes`, marked as just used."""
        found = []
        for digest in hashes:
            if digest not in self.block_of:
                break
            self.block_of.move_to_end(digest)
            found.append(self.block_of[digest])
        return found

    def check_integrity(self) -> None:
        """AssertionError unless every digest has a host block of its own."""
        blocks = list(self.block_of.values())
        assert len(set(blocks)) == len(blocks), "two prefixes share a host block"
        assert all(0 <= b < self.num_blocks for b in blocks), "a host block is out of range"
