"""The block pool by itself: who owns which block, what is cached in it, and what is given up first.

Its functions are exercises of Lab 8. A state machine drives them against a pool that is written as
naively as possible (lists, searched from end to end).
"""

from __future__ import annotations

import hashlib
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from infero.cache import pool as p
from infero.cache.pool import BlockPool, OutOfBlocks
from infero.errors import ConfigError, InferoError

# ---------------------------------------------------------------- slots


@given(st.integers(1, 9), st.lists(st.integers(0, 50), min_size=1, max_size=12, unique=True),
       st.data())
def test_slots_are_distinct_and_lie_in_the_blocks_of_the_table(
    size: int, table: list[int], data: st.DataObject
) -> None:
    end = data.draw(st.integers(0, len(table) * size))
    start = data.draw(st.integers(0, end))
    slots = p.slots_of(table, start, end - start, size)
    assert len(slots) == len(set(slots)) == end - start
    for position, slot in enumerate(slots, start):
        assert slot // size == table[position // size] and slot % size == position % size


def test_the_slots_of_the_picture() -> None:
    assert p.slots_of([7, 2, 9], 2, 8, 4) == [30, 31, 8, 9, 10, 11, 36, 37]
    assert p.slots_of([7, 2, 9], 4, 1, 4) == [8]
    assert p.slots_of([7], 3, 0, 4) == []


# ---------------------------------------------------------------- allocate and release


def test_all_or_nothing() -> None:
    pool = BlockPool(4, 2)
    assert len(set(p.allocate(pool, 3))) == 3
    before = (list(pool.free), list(pool.ref_count))
    with pytest.raises(OutOfBlocks, match=r"2 blocks are needed and 1 of 4"):
        p.allocate(pool, 2)
    assert before == (list(pool.free), list(pool.ref_count))
    assert p.allocate(pool, 0) == []
    assert isinstance(OutOfBlocks("x"), InferoError)


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (-1, 1)])
def test_a_pool_of_nothing_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        BlockPool(*sizes)


def cached(pool: BlockPool, tokens: list[int], salt: bytes = b"") -> list[int]:
    """A table whose full blocks are registered, as after the prefill of `tokens`."""
    digests = p.chain(p.root(salt), tokens, pool.block_size)
    table = p.allocate(pool, -(-len(tokens) // pool.block_size))
    for block, digest in zip(table, digests, strict=False):
        p.register(pool, block, digest)
    return table


def test_blank_blocks_are_taken_before_cached_ones() -> None:
    pool = BlockPool(4, 2)
    table = cached(pool, [1, 2, 3, 4, 5])  # two full blocks, one begun
    p.release(pool, table)
    assert p.allocate(pool, 2) == [table[2], 3]  # the blank ones: given back last, taken first
    assert len(pool.block_of) == 2


def test_the_end_of_a_prefix_is_given_up_before_its_beginning() -> None:
    pool = BlockPool(3, 2)
    table = cached(pool, [1, 2, 3, 4, 5, 6])
    p.release(pool, table)
    gone = []
    pool.evicted = lambda block, digest: gone.append((block, digest))
    digests = p.chain(p.root(), [1, 2, 3, 4, 5, 6], 2)
    assert p.allocate(pool, 2) == [table[2], table[1]]
    assert gone == [(table[2], digests[2]), (table[1], digests[1])]
    assert p.match_prefix(pool, digests) == [table[0]]


def test_the_least_recently_released_prefix_goes_first() -> None:
    pool = BlockPool(4, 2)
    a, b = cached(pool, [1, 2, 3, 4]), cached(pool, [5, 6, 7, 8])
    p.release(pool, a)
    p.release(pool, b)
    p.release(pool, p.match_prefix(pool, p.chain(p.root(), [1, 2, 3, 4], 2)))  # a is used again
    assert p.allocate(pool, 2) == [b[1], b[0]]


def test_a_hook_sees_the_block_before_it_is_forgotten() -> None:
    pool = BlockPool(1, 2)
    p.release(pool, cached(pool, [1, 2]))
    digest = p.chain(p.root(), [1, 2], 2)[0]
    seen = []
    pool.evicted = lambda block, d: seen.append((block, d, pool.block_of.get(d), d == digest))
    assert p.allocate(pool, 1) == [0]
    assert seen == [(0, digest, 0, True)] and pool.block_of == {} and pool.hash_of == [None]


def test_shared_blocks_stay_until_their_last_owner_leaves() -> None:
    pool = BlockPool(3, 2)
    a = cached(pool, [1, 2, 3, 4])
    b = p.match_prefix(pool, p.chain(p.root(), [1, 2, 3, 4, 5], 2))
    assert b == a and [pool.ref_count[x] for x in a] == [2, 2]
    p.release(pool, a)
    assert len(pool.free) == 1
    p.release(pool, b)
    assert len(pool.free) == 3
    p.check_integrity(pool, [])


# ---------------------------------------------------------------- digests


@given(st.lists(st.integers(0, 2**40), max_size=30), st.integers(1, 7), st.binary(max_size=6))
def test_a_digest_is_sha256_of_parent_and_little_endian_tokens(
    tokens: list[int], size: int, salt: bytes
) -> None:
    parent = hashlib.sha256(salt).digest()
    want = []
    for at in range(len(tokens) // size):
        block = tokens[at * size : (at + 1) * size]
        parent = hashlib.sha256(parent + struct.pack(f"<{size}q", *block)).digest()
        want.append(parent)
    assert p.chain(p.root(salt), tokens, size) == want


def test_a_digest_stands_for_everything_before_it() -> None:
    a = p.chain(p.root(), [1, 2, 3, 4, 5, 6], 2)
    assert a[:2] == p.chain(p.root(), [1, 2, 3, 4, 9, 9], 2)[:2]
    other = p.chain(p.root(), [1, 9, 3, 4, 5, 6], 2)
    assert not set(a) & set(other), "equal blocks after different ones must not be mistaken"
    assert p.chain(a[0], [3, 4, 5, 6], 2) == a[1:], "a chain can be continued"
    assert p.chain(p.root(), [1], 2) == [] == p.chain(p.root(), [], 2)


def test_salts_share_nothing() -> None:
    tokens = list(range(8))
    chains = [p.chain(p.root(s), tokens, 2) for s in (b"", b"a", b"b", b"ab")]
    assert len({d for c in chains for d in c}) == 16
    assert p.root("a") == p.root(b"a") and p.root() == p.root("") == p.root(b"")
    # Chosen tokens cannot imitate another tenant's root: it enters through its own digest.
    assert p.root(b"x") not in p.chain(p.root(), list(b"x" * 8), 1)


# ---------------------------------------------------------------- prefixes


def test_a_match_ends_at_the_first_gap() -> None:
    pool = BlockPool(4, 2)
    digests = p.chain(p.root(), [1, 2, 3, 4, 5, 6], 2)
    table = p.allocate(pool, 3)
    p.register(pool, table[0], digests[0])
    p.register(pool, table[2], digests[2])
    assert p.match_prefix(pool, digests) == [table[0]]
    assert pool.ref_count[table[0]] == 2 and pool.ref_count[table[2]] == 1
    assert p.match_prefix(pool, digests[1:]) == [] == p.match_prefix(pool, [])


def test_a_block_in_use_but_not_registered_is_never_found() -> None:
    """No hit on a block that is still being filled: only register() makes it findable."""
    pool = BlockPool(4, 2)
    p.allocate(pool, 2)
    assert p.match_prefix(pool, p.chain(p.root(), [1, 2, 3, 4], 2)) == []


def test_of_two_blocks_with_one_content_the_first_keeps_the_name() -> None:
    pool = BlockPool(4, 2)
    a, b = cached(pool, [1, 2]), cached(pool, [1, 2])
    digest = p.chain(p.root(), [1, 2], 2)[0]
    assert pool.block_of[digest] == a[0] and pool.hash_of[b[0]] is None
    p.release(pool, b)
    assert next(iter(pool.free)) == b[0], "the twin without the name is blank, so it goes first"
    p.register(pool, a[0], p.chain(p.root(), [3, 4], 2)[0])
    assert pool.hash_of[a[0]] == digest, "a block keeps its digest while it lives"
    p.check_integrity(pool, [a])


# ---------------------------------------------------------------- copy-on-write


def test_a_copy_is_made_only_of_a_shared_block() -> None:
    pool = BlockPool(5, 2)
    a = p.allocate(pool, 2)
    assert p.copy_on_write(pool, a, 1) is None
    for block in a:
        pool.ref_count[block] += 1
    b = list(a)
    pair = p.copy_on_write(pool, b, 1)
    assert pair == (a[1], b[1]) and a[1] != b[1] and a[0] == b[0]
    assert pool.ref_count[a[1]] == pool.ref_count[b[1]] == 1
    assert p.copy_on_write(pool, a, 1) is None, "the other owner is alone now"
    p.check_integrity(pool, [a, b])


def test_a_copy_needs_a_block_and_says_so() -> None:
    pool = BlockPool(2, 2)
    a = p.allocate(pool, 2)
    b = [a[0]]
    pool.ref_count[a[0]] += 1
    with pytest.raises(OutOfBlocks):
        p.copy_on_write(pool, b, 0)
    assert b == [a[0]] and pool.ref_count == [2, 1]
    p.check_integrity(pool, [a, b])


# ---------------------------------------------------------------- the checker itself


@pytest.mark.parametrize("harm", ["leak", "double", "lost", "stale", "orphan", "freed"])
def test_the_checker_notices(harm: str) -> None:
    pool = BlockPool(4, 2)
    table = cached(pool, [1, 2, 3])
    tables = [table]
    p.check_integrity(pool, tables)
    if harm == "leak":
        tables = []
    elif harm == "double":
        tables = [table, table[:1]]
    elif harm == "lost":
        pool.free.popitem()
    elif harm == "stale":
        pool.hash_of[table[1]] = b"nobody knows this"
    elif harm == "orphan":
        pool.block_of[b"leads nowhere"] = table[1]
    elif harm == "freed":
        pool.free[table[0]] = None
    with pytest.raises(AssertionError, match=r"block|digest|free"):
        p.check_integrity(pool, tables)


# ---------------------------------------------------------------- against a naive pool

PREFIXES = [[1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 2], [3, 3, 1, 1], [1, 1, 1, 1, 4, 4, 4, 4]]


class PoolMachine(RuleBasedStateMachine):
    """Requests come, share, copy and leave in any order.

    `content` remembers what each block holds; `order` is the naive pool's list of free blocks.
    """

    @initialize(blocks=st.integers(1, 9))
    def start(self, blocks: int) -> None:
        self.pool = BlockPool(blocks, 2)
        self.tables: list[list[int]] = []
        self.content: dict[int, bytes] = {}
        self.order = list(range(blocks))
        self.pool.evicted = self.evict

    def evict(self, block: int, digest: bytes) -> None:
        assert self.content[block] == digest, "evicted under a digest it does not hold"
        assert self.pool.ref_count[block] <= 1 and block not in self.used(), "evicted while owned"
        del self.content[block]

    def used(self) -> set[int]:
        return {block for table in self.tables for block in table}

    def take(self, n: int) -> list[int]:
        want, self.order = self.order[:n], self.order[n:]
        got = p.allocate(self.pool, n)
        assert got == want, "not the blocks whose turn it was"
        return got

    @rule(prefix=st.sampled_from(PREFIXES))
    def arrive(self, prefix: list[int]) -> None:
        digests = p.chain(p.root(), prefix, 2)
        hit = p.match_prefix(self.pool, digests)
        assert [self.content[b] for b in hit] == digests[: len(hit)]
        self.order = [b for b in self.order if b not in hit]
        need = -(-len(prefix) // 2) - len(hit)
        if need > len(self.order):
            with pytest.raises(OutOfBlocks):
                p.allocate(self.pool, need)
            self.tables.append(hit)
            self.leave_at(len(self.tables) - 1)
            return
        table = hit + self.take(need)
        for block, digest in zip(table, digests, strict=False):
            p.register(self.pool, block, digest)
            if self.pool.block_of[digest] == block:
                self.content[block] = digest
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        table = data.draw(st.sampled_from(self.tables))
        for block in table:
            self.pool.ref_count[block] += 1
        self.tables.append(list(table))

    @precondition(lambda self: any(self.tables))
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        table = data.draw(st.sampled_from([t for t in self.tables if t]))
        index = data.draw(st.integers(0, len(table) - 1))
        old, shared = table[index], self.pool.ref_count[table[index]] > 1
        if shared and not self.order:
            with pytest.raises(OutOfBlocks):
                p.copy_on_write(self.pool, table, index)
            return
        pair = p.copy_on_write(self.pool, table, index)
        assert (pair is not None) == shared
        if pair is not None:
            assert pair == (old, self.order.pop(0)) and table[index] == pair[1]

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.leave_at(data.draw(st.integers(0, len(self.tables) - 1)))

    def leave_at(self, at: int) -> None:
        table = self.tables.pop(at)
        p.release(self.pool, table)
        for block in reversed(table):
            if block not in self.used() and block not in self.order:
                self.order.insert(len(self.order) if block in self.content else 0, block)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "pool"):
            p.check_integrity(self.pool, self.tables)
            assert list(self.pool.free) == self.order
            assert {b: d for b, d in enumerate(self.pool.hash_of) if d} == self.content


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def test_a_thousand_random_requests_leave_the_pool_full() -> None:
    rng, pool, live = random.Random(5), BlockPool(64, 4), list[list[int]]()
    for _ in range(1000):
        tokens = [rng.randrange(3) for _ in range(rng.randrange(1, 40))]
        digests = p.chain(p.root(), tokens, 4)
        table = p.match_prefix(pool, digests)
        while (need := -(-len(tokens) // 4) - len(table)) > len(pool.free):
            p.release(pool, live.pop(rng.randrange(len(live))))
        table += p.allocate(pool, need)
        for block, digest in zip(table, digests, strict=False):
            p.register(pool, block, digest)
        live.append(table)
        p.check_integrity(pool, live)
    for table in live:
        p.release(pool, table)
    p.check_integrity(pool, [])
    assert len(pool.free) == 64 and len(pool.block_of) > 32
