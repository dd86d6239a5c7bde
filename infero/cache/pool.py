"""The block pool: which blocks of the KV cache are free, whose they are, and what they hold.

Chapter 8 explains it and has the reader write its functions. The pool is bookkeeping alone: it
knows numbers of blocks, never a tensor or a model, so it can be tested and fuzzed by itself.

    block table of a request   [ 7 | 2 | 9 ]        block_size 4
    position                    0 1 2 3 | 4 5 6 7 | 8 9
    slot                       28 … 31  | 8 … 11  | 36 37

A block with owners is referenced; a block without is in `free`, and may still hold a prefix that
somebody will ask for again: it is forgotten only when it is taken for something else.

Sources: PagedAttention, Kwon et al., arXiv:2309.06180; hash-chained prefix caching as in vLLM.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from infero.cache import pool as pool_module  # this one: pieces call one another through it
from infero.errors import ConfigError, InferoError


class OutOfBlocks(InferoError):
    """Fewer blocks are free than were asked for."""


@dataclass
class BlockPool:
    """`num_blocks` blocks of `block_size` slots each.

    free: blocks without an owner, the next to be taken first. Blank ones stand in front, then
        those that hold a prefix, least recently used first.
    hash_of: digest of the tokens up to and including each block's, where it is full and committed.
    block_of: the inverse. evicted: called with (block, digest) before a prefix is forgotten.
    """

    num_blocks: int
    block_size: int
    ref_count: list[int] = field(default_factory=list)
    free: OrderedDict[int, None] = field(default_factory=OrderedDict)
    hash_of: list[bytes | None] = field(default_factory=list)
    block_of: dict[bytes, int] = field(default_factory=dict)
    evicted: Callable[[int, bytes], None] | None = None

    def __post_init__(self) -> None:
        if self.num_blocks < 1 or self.block_size < 1:
            raise ConfigError(f"A pool of {self.num_blocks} blocks of {self.block_size} tokens "
                              "holds nothing; both must be at least 1.")
        self.ref_count = [0] * self.num_blocks
        self.hash_of = [None] * self.num_blocks
        self.free = OrderedDict.fromkeys(range(self.num_blocks))


# ---------------------------------------------------------------- pieces (Lab 8)


def slots_of(block_table: Sequence[int], start: int, n: int, block_size: int) -> list[int]:
    """The cache slot of each of the n tokens from position `start` of a request.

    Block i of the table holds positions i * block_size to (i + 1) * block_size - 1, in order;
    block b of the cache is made of slots b * block_size to (b + 1) * block_size - 1.
    """
    return [
        block_table[p // block_size] * block_size + p % block_size for p in range(start, start + n)
    ]


def allocate(pool: BlockPool, n: int) -> list[int]:
    """Take n blocks off the front of `free`, each with one owner.

    A block that held a prefix forgets it: `pool.evicted`, if there is one, is called with
    (block, digest) first. Raises OutOfBlocks, with nothing changed, if fewer than n are free.
    """
    if n > len(pool.free):
        raise OutOfBlocks(f"{n} blocks are needed and {len(pool.free)} of {pool.num_blocks} are "
                          "free; wait for a request to end, preempt one, or enlarge the pool.")
    blocks = [pool.free.popitem(last=False)[0] for _ in range(n)]
    for block in blocks:
        pool.ref_count[block] = 1
        digest = pool.hash_of[block]
        if digest is not None:
            if pool.evicted is not None:
                pool.evicted(block, digest)
            del pool.block_of[digest]
            pool.hash_of[block] = None
    return blocks


def release(pool: BlockPool, blocks: Sequence[int]) -> None:
    """Take one owner from each block of a table; a block without owners becomes free.

    The last block goes first, so that the end of a prefix is reused before its beginning, without
    which it is worth nothing. A block that holds a prefix goes to the back of `free`, a blank one
    to the front.
    """
    for block in reversed(blocks):
        pool.ref_count[block] -= 1
        if pool.ref_count[block] == 0:
            pool.free[block] = None
            if pool.hash_of[block] is None:
                pool.free.move_to_end(block, last=False)


def chain(parent: bytes, tokens: Sequence[int], block_size: int) -> list[bytes]:
    """Digests of the full blocks of `tokens`, each standing for everything before it too.

    A digest is the SHA-256 of the digest before it (`parent` for the first) followed by the
    block's tokens as little-endian 64-bit integers. A last block that is not full has none.
    """
    digests = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        content = b"".join(t.to_bytes(8, "little") for t in tokens[start : start + block_size])
        parent = hashlib.sha256(parent + content).digest()
        digests.append(parent)
    return digests


def match_prefix(pool: BlockPool, hashes: Sequence[bytes]) -> list[int]:
    """Blocks that already hold the longest leading run of `hashes`; each gains an owner.

    The run ends at the first digest the pool does not know. A block that was free leaves `free`.
    """
    blocks = []
    for digest in hashes:
        block = pool.block_of.get(digest)
        if block is None:
            break
        if pool.ref_count[block] == 0:
            del pool.free[block]
        pool.ref_count[block] += 1
        blocks.append(block)
    return blocks


def copy_on_write(pool: BlockPool, block_table: list[int], index: int) -> tuple[int, int] | None:
    """Make block_table[index] safe to write into: nobody else may own it.

    If it has other owners, a newly allocated block takes its place in the table, the old one loses
    an owner, and (old, new) is returned: the caller copies the content. Otherwise None, with
    nothing changed. Raises OutOfBlocks, with nothing changed, if a copy is due and none is free.
    """
    old = block_table[index]
    if pool.ref_count[old] == 1:
        return None
    new = pool_module.allocate(pool, 1)[0]
    block_table[index] = new
    pool_module.release(pool, [old])
    return old, new


# ---------------------------------------------------------------- around them


def root(salt: bytes | str = b"") -> bytes:
    """What the first block's digest is chained to. Requests share prefixes only under one salt."""
    return hashlib.sha256(salt.encode() if isinstance(salt, str) else salt).digest()


def register(pool: BlockPool, block: int, digest: bytes) -> None:
    """Make a full block findable, once its keys and values are in it.

    Where another block already holds the same prefix, that one keeps the name.
    """
    if pool.hash_of[block] is None and digest not in pool.block_of:
        pool.hash_of[block] = digest
        pool.block_of[digest] = block


def check_integrity(pool: BlockPool, tables: Iterable[Sequence[int]]) -> None:
    """AssertionError, in words, unless the pool and the block tables of all requests agree."""
    owners = Counter(block for table in tables for block in table)
    for block in range(pool.num_blocks):
        count = pool.ref_count[block]
        assert count == owners[block], (
            f"block {block} counts {count} owners, but stands in {owners[block]} block tables")
        assert (block in pool.free) == (count == 0), (
            f"block {block} has {count} owners and is {'' if block in pool.free else 'not '}free")
        digest = pool.hash_of[block]
        assert digest is None or pool.block_of.get(digest) == block, (
            f"block {block} has a digest that leads to block {pool.block_of.get(digest)}")
    referenced = sum(count > 0 for count in pool.ref_count)
    assert len(pool.free) + referenced == pool.num_blocks, "free + referenced is not the total"
    assert len(pool.block_of) == sum(d is not None for d in pool.hash_of), (
        "a digest leads to a block that does not carry it")
