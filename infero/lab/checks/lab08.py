"""What Lab 8 demands of its six pieces, and the mistakes it knows by name.

Each check builds block pools in random states (owned, shared, cached and blank blocks in shuffled
order) and works out on plain lists what should become of them. `lab08_sharing.py` has the checks
of chain, match_prefix and copy_on_write, which are named here too. Chapter 8 explains the pieces.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from infero.cache.pool import OutOfBlocks
from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab08_sharing import chain, copy_on_write, match_prefix
from infero.lab.checks.lab08_tools import (
    State,
    judge,
    random_pool,
    refused,
    snapshot,
    unchanged,
)

__all__ = ["allocate", "chain", "copy_on_write", "match_prefix", "release", "slots_of"]

# ---------------------------------------------------------------- 1: slots_of


def slots_of(c: Check) -> None:
    """Shuffled tables, spans that start and end inside blocks, blocks of one token, nothing."""
    for seed in c.seeds(6):
        draw = random.Random(seed)
        for size, start, n in ((4, 5, 9), (16, 0, 40), (3, 7, 1), (1, 2, 5), (8, 8, 8), (5, 0, 5),
                               (4, 3, 2), (6, 11, 0), (7, 20, 23), (16, 31, 2)):
            blocks = -(-(start + n) // size) + draw.randrange(3)
            table = draw.sample(range(3 * blocks + 5), max(blocks, 1))
            given = tuple(table) if draw.random() < 0.3 else list(table)
            got = c.call(given, start, n, size)
            unchanged(c, table, list(given), "block_table")
            if got is None:
                raise Mistake("The result is None: does your function end in `return`?",
                              key="returns-none")
            try:
                got = [int(slot) for slot in got]
            except (TypeError, ValueError):
                raise Mistake(f"Return a list of slots, one int for each token; you gave {got!r}.",
                              key="wrong-type") from None
            _judge_slots(got, table, start, n, size)
    table = random.Random(0).sample(range(500), 130)
    c.sample = ((table, 11, 2000, 16), {})


def _judge_slots(got: list[int], table: list[int], start: int, n: int, size: int) -> None:
    where = list(range(start, start + n))
    want = [table[p // size] * size + p % size for p in where]
    if got == want:
        return

    def at(i: int) -> int:
        return table[i % len(table)]

    known = {
        "block-not-slot": (
            "You add the offset to the number of the block; block b begins at slot b * block_size.",
            [at(p // size) + p % size for p in where]),
        "table-ignored": (
            "Only the first block is looked up, and the others are taken to follow it. They lie "
            "anywhere: look up the block of every position.", [table[0] * size + p for p in where]),
        "positions-for-slots": ("These are the positions themselves; the table is not used.",
                                where),
        "start-ignored": ("You start at position 0; the first token stands at position `start`.",
                          [at(p // size) * size + p % size for p in range(n)]),
        "offset-from-start": (
            "The place inside the block is counted from the first new token; it is counted from "
            "the request's first: position % block_size.",
            [at((start + i) // size) * size + i % size for i in range(n)]),
        "block-from-start": (
            "The table is read from its first entry for the first new token; entry i holds the "
            "positions i * block_size and following of the whole request.",
            [at(i // size) * size + (start + i) % size for i in range(n)]),
        "from-block-start": (
            "You start at the beginning of the block in which `start` lies.",
            [at(p // size) * size + p % size for p in range(start - start % size,
                                                            start - start % size + n)]),
        "off-by-one": ("Every position is one too large.",
                       [at((p + 1) // size) * size + (p + 1) % size for p in where]),
        "swapped": ("Quotient and remainder have changed places: position // block_size is the "
                    "place in the table, position % block_size the place in the block.",
                    [at(p % size) * size + p // size for p in where]),
        "whole-prefix": ("You give the slots of all positions up to the last; the tokens before "
                         "`start` are in the cache already.",
                         [at(p // size) * size + p % size for p in range(start + n)]),
        "end-for-length": ("You stop at position n; n is the number of tokens, so the last stands "
                           "at start + n - 1.",
                           [at(p // size) * size + p % size for p in range(start, n)]),
        "blocks-for-slots": ("These are the blocks of the tokens; within its block a token has a "
                             "slot of its own.", [at(p // size) for p in where]),
        "block-starts": ("These are the first slots of the blocks; add the token's place in its "
                         "block.", [at(p // size) * size for p in where]),
    }
    for key, (words, wrong) in known.items():
        if wrong != want and got == wrong:
            raise Mistake(words, key=key, details=[_example(got, want, table, start, size)])
    if len(got) != n:
        raise Mistake(f"You give {len(got)} slots for {n} tokens; give one each.",
                      key="wrong-length")
    raise Mistake(_example(got, want, table, start, size), key="wrong-values")


def _example(got: list[int], want: list[int], table: list[int], start: int, size: int) -> str:
    i = next((k for k, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), 0)
    if i >= len(got) or i >= len(want):
        return f"You give {len(got)} slots, expected {len(want)}."
    p = start + i
    return (f"With blocks of {size} and the table {table}, position {p} lies in entry {p // size}, "
            f"which is block {table[p // size]}, at place {p % size}: slot {want[i]}. You gave "
            f"{got[i]}.")


# ---------------------------------------------------------------- 2a: allocate

_SHAPES = [  # owned, cached, blank, how many to take
    (3, 4, 5, 3), (2, 5, 2, 4), (0, 0, 6, 6), (4, 6, 0, 6), (5, 1, 1, 0), (1, 7, 3, 8),
    (2, 3, 0, 1),
]


def allocate(c: Check) -> None:
    """Blank and cached blocks, all that are free, none at all, one more than there are."""
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for owned, cached, blank, n in _SHAPES:
            pool = random_pool(draw, owned, cached, blank)
            heard: list[Any] = []
            listening = draw.random() < 0.7

            def evicted(block: int, digest: bytes, pool: Any = pool, heard: Any = heard) -> None:
                heard.append((block, digest, pool.block_of.get(digest) == block))

            pool.evicted = evicted if listening else None
            before = snapshot(pool)
            got = snapshot(pool, _blocks(_allowed(c, pool, n)), heard=heard)
            _judge_allocate(c, got, before, n, blank, listening)
        for owned, cached, blank in ((3, 2, 2), (4, 0, 0), (1, 5, 0)):
            pool = random_pool(draw, owned, cached, blank)
            n = cached + blank + 1 + draw.randrange(2)
            words = (f"{n} blocks are asked for and {cached + blank} are free: raise OutOfBlocks.")
            refused(c, OutOfBlocks, pool, partial(c.candidate, pool, n), words)
    c.sample = None  # a pool that was used up cannot be timed again


def _allowed(c: Check, pool: Any, n: int) -> Any:
    """What the candidate returns for n blocks when there are enough."""
    free, blank = len(pool.free), sum(pool.hash_of[block] is None for block in pool.free)
    try:
        return c.call(pool, n)
    except Mistake as mistake:
        if isinstance(mistake.__cause__, OutOfBlocks):
            raise Mistake(f"OutOfBlocks is raised for {n} blocks, though {free} are free ({blank} "
                          "blank ones; the others hold prefixes, which may be forgotten).",
                          key="refuses-too-early") from mistake.__cause__
        raise


def _blocks(result: Any) -> Any:
    if result is None or isinstance(result, (list, tuple)):
        return None if result is None else list(result)
    raise Mistake(f"Return a list of blocks; you gave {result!r}.", key="wrong-type")


def _take(before: State, blocks: list[int], *, refs: bool = True, gone: bool = True,
          hash_of: bool = True, block_of: bool = True, hears: bool = False, late: bool = False,
          swapped: bool = False) -> State:
    """The state after `blocks` were taken, leaving out what is said to be left out."""
    after = before.copy()
    after.result = list(blocks)
    for block in blocks:
        if gone:
            after.free.remove(block)
        if refs:
            after.refs[block] = 1
        digest = before.digests[block]
        if digest is None:
            continue
        if hears:
            after.heard.append((digest, block, False) if swapped else (block, digest, not late))
        if hash_of:
            after.digests[block] = None
        if block_of:
            del after.found[digest]
    return after


def _judge_allocate(c: Check, got: State, before: State, n: int, blank: int, hears: bool) -> None:
    first = before.free[:n]
    want = _take(before, first, hears=hears)

    def wrong(blocks: list[int] | None = None, **change: Any) -> State:
        return _take(before, first if blocks is None else blocks, **({"hears": hears} | change))

    back = before.free[len(before.free) - n:] if n else []
    known = {
        "from-the-back": ("You take from the back of `free`, where the most recently used prefixes "
                          "stand; take from the front (popitem(last=False)).", wrong(back[::-1])),
        "from-the-back-in-order": ("You take from the back of `free`; take from the front.",
                                   wrong(back)),
        "lowest-number": ("You take the free blocks with the lowest numbers; the order of `free` "
                          "decides, since it says which prefix was used least recently.",
                          wrong(sorted(before.free)[:n])),
        "reversed": ("These are the right blocks in the wrong order: the first taken comes first.",
                     _reversed(want)),
        "no-owner": ("The blocks have no owner: set their ref_count to 1.", wrong(refs=False)),
        "still-free": ("The blocks you give away are still in `free`; the next caller would get "
                       "them too.", wrong(gone=False)),
        "hash-kept": ("A block that held a prefix keeps its digest in both maps. Its content is "
                      "about to be overwritten, so a later request would find the wrong tokens "
                      "there.", wrong(hash_of=False, block_of=False, hears=False)),
        "hash-kept-though-reported": (
            "pool.evicted hears of the prefix, but the block keeps its digest in both maps.",
            wrong(hash_of=False, block_of=False)),
        "hash_of-kept": ("The digest is taken out of block_of and left in hash_of; forget it in "
                         "both.", wrong(hash_of=False)),
        "block_of-kept": ("The digest is taken out of hash_of and left in block_of, so it is still "
                          "found, and leads to a block that will hold something else.",
                          wrong(block_of=False)),
        "evicted-not-called": ("pool.evicted is never called: the host tier does not hear of the "
                               "prefix that is lost.", wrong(hears=False)),
        "evicted-too-late": ("pool.evicted is called after the digest was forgotten; call it "
                             "first.", wrong(late=True)),
        "evicted-swapped": ("pool.evicted takes (block, digest), in this order.",
                            wrong(swapped=True)),
    }
    if hears and len(got.heard) > len(want.heard) and any(one[1] is None for one in got.heard):
        raise Mistake("pool.evicted is called for blank blocks too; it is told only of blocks that "
                      "held a prefix.", key="evicted-for-blank")
    judge(c, got, want, known, returns="the list of blocks")


def _reversed(state: State) -> State:
    after = state.copy()
    after.result = after.result[::-1]
    return after


# ---------------------------------------------------------------- 2b: release


def release(c: Check) -> None:
    """Tables of cached and blank blocks, some shared; a table of one; an empty one."""
    for seed in c.seeds(5):
        draw = random.Random(seed)
        for owned, cached, blank, length in ((6, 3, 2, 6), (8, 0, 0, 5), (5, 4, 3, 4), (3, 1, 1, 1),
                                             (4, 2, 2, 0), (9, 3, 0, 9)):
            pool = random_pool(draw, owned, cached, blank)
            used = [b for b in range(pool.num_blocks) if pool.ref_count[b]]
            table = draw.sample(used, length)
            if length > 3:  # one block of each kind is certain
                for block, refs, known in zip(table, (1, 1, 2, 1), (True, False, True, True),
                                              strict=False):
                    pool.ref_count[block] = refs
                    digest = pool.hash_of[block]
                    if known and digest is None:
                        digest = bytes(draw.randbytes(32))
                        pool.hash_of[block], pool.block_of[digest] = digest, block
                    elif not known and digest is not None:
                        del pool.block_of[digest]
                        pool.hash_of[block] = None
            before, given = snapshot(pool), list(table)
            result = c.call(pool, given)
            unchanged(c, table, given, "blocks")
            c.expect(result is None, "returns-something",
                     f"release returns nothing; you returned {result!r}.")
            _judge_release(c, snapshot(pool), before, table)
    c.sample = None


def _let_go(before: State, blocks: list[int], *, blank_front: bool = True,
            cached_front: bool = False, always: bool = False, zero: bool = False,
            forget: bool = False, frees: bool = True, counts: bool = True) -> State:
    """The state after an owner was taken from each block, in the order given."""
    after = before.copy()
    for block in blocks:
        if counts:
            after.refs[block] = 0 if zero else after.refs[block] - 1
        if forget and after.refs[block] == 0:
            after.forget(block)
        if (after.refs[block] == 0 or always) and frees:
            front = cached_front if after.digests[block] is not None else blank_front
            after.free.insert(0, block) if front else after.free.append(block)
    return after


def _judge_release(c: Check, got: State, before: State, table: list[int]) -> None:
    last_first = table[::-1]
    want = _let_go(before, last_first)
    known = {
        "head-first": ("The first block of the table is released first, so the beginning of the "
                       "prefix is reused before its end. Without its beginning the rest of a chain "
                       "is never found again: go through the table from the last block.",
                       _let_go(before, table)),
        "blank-to-the-back": ("A blank block goes to the back of `free`, behind prefixes that "
                              "could still be asked for; it belongs to the front.",
                              _let_go(before, last_first, blank_front=False)),
        "head-first-and-blank-to-the-back": (
            "Two things: the last block of the table goes first, and a blank block goes to the "
            "front of `free`.", _let_go(before, table, blank_front=False)),
        "cached-to-the-front": ("A block that holds a prefix goes to the front of `free`, so the "
                                "prefix used last is forgotten first; it belongs to the back.",
                                _let_go(before, last_first, cached_front=True)),
        "exchanged": ("The ends are exchanged: a block that holds a prefix goes to the back, a "
                      "blank one to the front.",
                      _let_go(before, last_first, cached_front=True, blank_front=False)),
        "freed-while-owned": ("A block is put into `free` though it has other owners; only at "
                              "ref_count 0 is it free.", _let_go(before, last_first, always=True)),
        "count-zeroed": ("ref_count is set to 0; the other owners of a shared block are "
                         "forgotten. Take one off.", _let_go(before, last_first, zero=True)),
        "hash-forgotten": ("A released block forgets its prefix; then nobody can find it again, "
                           "and nothing is ever cached. It is forgotten when it is taken.",
                           _let_go(before, last_first, forget=True)),
        "never-freed": ("The owners are counted down, but a block without owners is not put into "
                        "`free`: it leaks.", _let_go(before, last_first, frees=False)),
        "not-counted": ("ref_count is not changed: take one owner off each block.",
                        _let_go(before, last_first, counts=False)),
    }
    judge(c, got, want, known)
