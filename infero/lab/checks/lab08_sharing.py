"""The checks of Lab 8's three functions on shared blocks: chain, match_prefix, copy_on_write."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from infero.cache.pool import OutOfBlocks
from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab08_tools import (
    State,
    digest_of,
    judge,
    random_pool,
    refused,
    snapshot,
    unchanged,
)

# ---------------------------------------------------------------- 3: chain


def _packed(tokens: Sequence[int], form: str = "<q") -> bytes:
    """The tokens one after the other in the given format; b"" where one does not fit."""
    try:
        return b"".join(struct.pack(form, token) for token in tokens)
    except struct.error:
        return b""


def _digests(parent: bytes, blocks: Sequence[Sequence[int]],
             content: Callable[[bytes, Sequence[int]], bytes], linked: bool = True) -> list[bytes]:
    out: list[bytes] = []
    for block in blocks:
        out.append(hashlib.sha256(content(parent, block)).digest())
        parent = out[-1] if linked else parent
    return out


def chain(c: Check) -> None:
    """Full and partial last blocks, tokens beyond 32 bits, two parents, equal blocks in a row."""
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for size, length in ((4, 13), (4, 12), (3, 9), (1, 4), (16, 40), (5, 4), (7, 0), (2, 9)):
            tokens = [draw.choice((draw.randrange(300), draw.randrange(150_000)))
                      for _ in range(length)]
            if length > 8:
                tokens[0] = 2**40 + draw.randrange(1000)  # an id of 64 bits is still an id
            if seed % 2 and length >= 2 * size:
                tokens[size:2 * size] = tokens[:size]  # the same block twice, at two places
            parent, given = digest_of(draw), list(tokens)
            got = c.call(parent, given, size)
            unchanged(c, tokens, given, "tokens")
            _judge_chain(got, parent, tokens, size)
    draw = random.Random(1)
    c.sample = ((digest_of(draw), [draw.randrange(50_000) for _ in range(512)], 16), {})


def _judge_chain(got: Any, parent: bytes, tokens: list[int], size: int) -> None:
    if got is None:
        raise Mistake("The result is None: does your function end in `return`?",
                      key="returns-none")
    if not isinstance(got, (list, tuple)):
        raise Mistake(f"Return a list of digests; you gave {got!r}.", key="wrong-type")
    blocks = [tokens[i:i + size] for i in range(0, len(tokens) - size + 1, size)]
    every = [tokens[i:i + size] for i in range(0, len(tokens), size)]
    want = _digests(parent, blocks, lambda d, t: d + _packed(t))
    if list(got) == want:
        return
    odd = next((one for one in got if not isinstance(one, bytes)), None)
    if odd is not None:
        raise Mistake("A digest is 32 bytes, sha256(…).digest(), and not "
                      f"{'text' if isinstance(odd, str) else f'of type {type(odd).__name__}'}; you "
                      f"gave {odd!r}.", key="wrong-type")
    first = blocks[:1]
    whole = [[t for b in blocks[:i + 1] for t in b] for i in range(len(blocks))]
    known: dict[str, tuple[str, list[bytes]]] = {
        "partial-hashed": (
            "The last block is not full and has a digest all the same. More tokens will be written "
            "into it, and then the digest would be wrong: only full blocks get one.",
            _digests(parent, every, lambda d, t: d + _packed(t))),
        "last-full-dropped": (
            "The last full block has no digest: where the tokens end exactly with a block, it "
            "counts too.", _digests(parent, blocks[:(max(len(tokens) - 1, 0)) // size],
                                    lambda d, t: d + _packed(t))),
        "not-chained": (
            "Every block is hashed with `parent` and its own tokens alone. Keys and values depend "
            "on everything before them, so equal tokens after different beginnings are different "
            "blocks: hash the digest before it, too.",
            _digests(parent, blocks, lambda d, t: d + _packed(t), linked=False)),
        "parent-ignored": (
            "The first block is hashed without `parent`, so two tenants with different salts would "
            "share their blocks.",
            _digests(b"", blocks, lambda d, t: d + _packed(t))),
        "tokens-only": (
            "Each block is hashed by its own tokens alone: equal tokens after different beginnings "
            "would be taken for the same.", _digests(b"", blocks, lambda _, t: _packed(t))),
        "running-hash": (
            "You hash parent and all tokens so far. That depends on the right things, but it is "
            "not the chain of the exercise: a digest is over the digest before it and one block's "
            "tokens, so that a block costs the same wherever it stands.",
            [hashlib.sha256(parent + _packed(t)).digest() for t in whole]),
        "parent-last": ("The digest before it comes first and the tokens follow; you have them the "
                        "other way round.", _digests(parent, blocks, lambda d, t: _packed(t) + d)),
        "big-endian": ("The tokens are written big end first; the exercise says little-endian.",
                       _digests(parent, blocks, lambda d, t: d + _packed(t, ">q"))),
        "as-text": ("The tokens are hashed as text; write each as a 64-bit integer.",
                    _digests(parent, blocks, lambda d, t: d + str(list(t)).encode())),
        "as-text-tuple": ("The tokens are hashed as text; write each as a 64-bit integer.",
                          _digests(parent, blocks, lambda d, t: d + str(tuple(t)).encode())),
        "truncated": (
            "Each token is cut to 32 bits, so different tokens get one digest.",
            _digests(parent, blocks, lambda d, t: d + _packed([x % 2**32 for x in t], "<I"))),
        "truncated-byte": (
            "Each token is cut to its last byte, so different tokens get one digest.",
            _digests(parent, blocks, lambda d, t: d + bytes(x % 256 for x in t))),
        "first-only": ("Only the first block has a digest.",
                       _digests(parent, first, lambda d, t: d + _packed(t))),
        "parent-included": ("The list begins with `parent`; it belongs to no block.",
                            [parent, *want]),
        "last-only": ("Only the last digest is returned; each full block has one.", want[-1:]),
    }
    for key, (words, wrong) in known.items():
        if wrong != want and list(got) == wrong:
            raise Mistake(words, key=key)
    if len(got) != len(want):
        raise Mistake(f"{len(tokens)} tokens in blocks of {size} have {len(want)} full blocks; you "
                      f"give {len(got)} digests.", key="wrong-length")
    i = next(i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b)
    raise Mistake(f"Digest {i} is wrong ({got[i].hex()[:12]}… and not {want[i].hex()[:12]}…): it "
                  "is sha256(the digest before it, then the block's tokens, 8 bytes each, little "
                  "end first).", key="wrong-values")


# ---------------------------------------------------------------- 4: match_prefix


def match_prefix(c: Check) -> None:
    """Prefixes that are free, owned or both, cut by a hole; nothing cached; nothing asked."""
    for seed in c.seeds(5):
        draw = random.Random(seed)
        for owned, cached, blank, hit, more, beyond in (
            (5, 5, 2, 5, 3, 2), (6, 4, 1, 4, 0, 0), (3, 6, 2, 0, 3, 2), (4, 4, 4, 3, 1, 0),
            (2, 2, 2, 0, 0, 0), (0, 6, 0, 6, 2, 0), (8, 0, 3, 2, 2, 1),
        ):
            pool = random_pool(draw, owned, cached, blank)
            known = draw.sample(list(pool.block_of), len(pool.block_of))
            known.sort(key=lambda digest: pool.block_of[digest] == 0)  # block 0 comes last,
            if not blank and pool.hash_of[0] is not None:  # but once in the middle
                known.insert(2, known.pop())
            hashes = known[:hit]
            hashes += [digest_of(draw) for _ in range(more)]
            hashes += known[hit:hit + beyond] if more else []  # behind the hole
            before, given = snapshot(pool), list(hashes)
            result = c.call(pool, given)
            unchanged(c, hashes, given, "hashes")
            if result is None:
                raise Mistake("The result is None: does your function end in `return`?",
                              key="returns-none")
            if not isinstance(result, (list, tuple)):
                raise Mistake(f"Return the list of blocks; you gave {result!r}.",
                              key="wrong-type")
            _judge_match(c, snapshot(pool, list(result)), before, hashes, min(hit, len(known)))
    c.sample = None


def _own(before: State, blocks: list[int], *, counts: bool = True, leaves: bool = True,
         back: bool = False, one: bool = False, result: Any = None) -> State:
    """The state after each of `blocks` gained an owner."""
    after = before.copy()
    after.result = list(blocks) if result is None else result
    for block in blocks:
        if block in after.free and leaves:
            after.free.remove(block)
            if back:
                after.free.append(block)
        if counts:
            after.refs[block] = 1 if one else after.refs[block] + 1
    return after


def _judge_match(c: Check, got: State, before: State, hashes: list[bytes], run: int) -> None:
    blocks = [before.found[digest] for digest in hashes[:run]]
    every = [before.found[digest] for digest in hashes if digest in before.found]
    want = _own(before, blocks)
    known: dict[str, tuple[str, State | None]] = {
        "block-zero": ("The search stops at block 0, which is a block like any other: compare with "
                       "None.", _own(before, blocks[:blocks.index(0)]) if 0 in blocks else None),
        "skips-holes": (
            "You go on after a digest that the pool does not know. A block is of use only if "
            "everything before it is there: stop at the first miss.", _own(before, every)),
        "no-owner": ("The blocks gain no owner: somebody else could be given them while they are "
                     "in use.", _own(before, blocks, counts=False)),
        "nothing-changed": ("The blocks are found, but they gain no owner and stay in `free`: the "
                            "next allocation would overwrite them.",
                            _own(before, blocks, counts=False, leaves=False)),
        "still-free": ("A block that was free stays in `free` though it has an owner now.",
                       _own(before, blocks, leaves=False)),
        "moved-to-the-back": ("A block that was free is moved to the back of `free`; it has an "
                              "owner now and must leave it.", _own(before, blocks, back=True)),
        "count-set": ("ref_count is set to 1; a block with other owners gains one more.",
                      _own(before, blocks, one=True)),
        "one-short": (
            "The last matching block is left out. (A wholly cached prompt must still compute its "
            "last token, but that is the scheduler's care: here every match counts.)",
            _own(before, blocks[:-1])),
        "all-or-nothing": ("You give nothing unless every digest is known; the leading ones are "
                           "worth having.", _own(before, blocks if run == len(hashes) else [])),
        "returns-digests": ("You return digests; return the numbers of the blocks.",
                            _own(before, blocks, result=list(hashes[:run]))),
        "reversed": ("The blocks come in the wrong order: the first block of the prompt comes "
                     "first.", _own(before, blocks, result=blocks[::-1])),
    }
    judge(c, got, want, known, returns="the list of blocks")


# ---------------------------------------------------------------- 5: copy_on_write


def copy_on_write(c: Check) -> None:
    """Shared by two and by three, owned alone, at every place of a table, with nothing free."""
    for seed in c.seeds(5):
        draw = random.Random(seed)
        for owned, cached, blank, refs in ((6, 2, 2, 1), (6, 2, 2, 2), (5, 3, 0, 3), (4, 0, 1, 2),
                                           (5, 0, 0, 1), (4, 2, 1, 4)):
            pool, table, index = _shared(draw, owned, cached, blank, refs)
            heard: list[Any] = []
            pool.evicted = lambda block, digest, heard=heard: heard.append((block, digest))
            before, given = snapshot(pool, table=table), list(table)
            result = c.call(pool, given, index)
            got = snapshot(pool, tuple(result) if isinstance(result, list) else result, given,
                           heard)
            _judge_copy(c, got, before, index)
        pool, table, index = _shared(draw, 5, 0, 0, 2)
        given = list(table)
        words = "A copy is due and no block is free: raise OutOfBlocks (allocate does)."
        refused(c, OutOfBlocks, pool, partial(c.candidate, pool, given, index), words)
        if given != table:
            raise Mistake("OutOfBlocks is raised, but the block table was changed before that; "
                          "whoever asked will try again. Allocate first, then change things.",
                          key="changed-before-raising")
    c.sample = None


def _shared(draw: random.Random, owned: int, cached: int, blank: int, refs: int
            ) -> tuple[Any, list[int], int]:
    """A pool, a block table over it, and the place of the block that is about to be written."""
    pool = random_pool(draw, owned, cached, blank)
    used = [b for b in range(pool.num_blocks) if pool.ref_count[b]]
    table = draw.sample(used, 4)
    index = draw.randrange(4)
    if index != 3:
        pool.ref_count[table[3]] = 2  # so that taking the last block for this one shows
    pool.ref_count[table[index]] = refs
    return pool, table, index


def _copied(before: State, index: int, *, table: bool = True, loses: bool = True,
            owner: bool = True, forgets: bool = True, moves: bool = False, result: Any = "pair",
            hears: bool = True) -> State:
    """The state after block table entry `index` was replaced by a new block."""
    after = before.copy()
    assert before.table is not None and after.table is not None
    if not before.free:
        return after
    old, new = before.table[index], before.free[0]
    after.free.remove(new)
    digest = before.digests[new]
    if forgets and digest is not None:
        after.forget(new)
    if hears and digest is not None:
        after.heard.append((new, digest))
    after.refs[new] = 1 if owner else 0
    if loses:
        after.refs[old] -= 1
        if after.refs[old] == 0:
            if after.digests[old] is None:
                after.free.insert(0, old)
            else:
                after.free.append(old)
    name = before.digests[old]
    if moves and name is not None:
        after.digests[old], after.digests[new], after.found[name] = None, name, new
    if table:
        after.table[index] = new
    after.result = (old, new) if result == "pair" else (new, old) if result == "swapped" else (
        new if result == "new" else None)
    return after


def _judge_copy(c: Check, got: State, before: State, index: int) -> None:
    assert before.table is not None
    last = len(before.table) - 1
    elsewhere = index != last and before.refs[before.table[last]] > 1 and before.free
    wrong_entry = ("You look at the last block of the table; the one to be written into is "
                   "block_table[index].", _copied(before, last) if elsewhere else None)
    if before.refs[before.table[index]] == 1:
        want = before.copy()
        known: dict[str, tuple[str, State | None]] = {
            "copies-always": ("A block that nobody else owns is copied too; write into it in place "
                              "and return None.", _copied(before, index) if before.free else None),
            "copies-alone": ("You copy the block when it is yours alone, and not when it is "
                             "shared.", _copied(before, index, loses=False)
                             if before.free else None),
            "last-entry": wrong_entry,
        }
        judge(c, got, want, known, returns="None")
        return
    want = _copied(before, index)

    def wrong(**change: Any) -> State:
        return _copied(before, index, **change)

    known = {
        "never-copies": ("The block has other owners and is not copied: one sample would write "
                         "into the other's context.", before.copy()),
        "pair-swapped": ("The pair is (old, new), where to copy from and where to; yours is the "
                         "other way round.", wrong(result="swapped")),
        "table-unchanged": ("A new block is taken, but the block table still names the old one. "
                            "Change the list you were given: block_table[index] = new.",
                            wrong(table=False)),
        "old-keeps-owner": ("The old block keeps an owner that no longer uses it: it will never "
                            "become free. Take one off.", wrong(loses=False)),
        "returns-nothing": ("The table is changed and nothing is returned, so nobody copies the "
                            "content: return (old, new).", wrong(result="none")),
        "returns-new-only": ("Return the pair (old, new); the caller must know where to copy from.",
                             wrong(result="new")),
        "prefix-moved": ("The digest goes over to the new block; the old one keeps its content and "
                         "its name, and the new one is about to differ.", wrong(moves=True)),
        "taken-by-hand": ("The new block held a prefix and still carries its digest. Take it with "
                          "allocate, which forgets it.", wrong(forgets=False, hears=False)),
        "not-reported": ("The new block held a prefix, and pool.evicted was not called. Take it "
                         "with allocate, which does.", wrong(hears=False)),
        "no-owner": ("The new block has no owner: its ref_count must be 1.", wrong(owner=False)),
        "last-entry": wrong_entry,
    }
    judge(c, got, want, known, returns="(old, new)")
