"""Random block pools, their states as plain lists, and words for two states that differ.

The checks of Lab 8 work out what should have happened on these plain lists, never with the pool's
own functions. A known mistake is another such state: the one that the mistake would have led to.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infero.cache.pool import BlockPool
from infero.lab.checking import Check, Mistake

Known = Mapping[str, tuple[str, "State | None"]]


@dataclass
class State:
    """What a pool holds and what the function returned, in plain lists.

    `table` is the block table it was given, where it may change it; `heard` what `evicted` heard.
    """

    refs: list[int]
    free: list[int]
    digests: list[bytes | None]
    found: dict[bytes, int]
    result: Any = None
    table: list[int] | None = None
    heard: list[Any] = field(default_factory=list)

    def copy(self) -> State:
        table = None if self.table is None else list(self.table)
        return State(list(self.refs), list(self.free), list(self.digests), dict(self.found),
                     self.result, table, list(self.heard))

    def forget(self, block: int) -> None:
        """Block `block` no longer holds a prefix."""
        digest = self.digests[block]
        if digest is not None:
            self.found.pop(digest, None)
        self.digests[block] = None


def digest_of(draw: random.Random) -> bytes:
    return hashlib.sha256(draw.randbytes(8)).digest()


def random_pool(draw: random.Random, owned: int, cached: int, blank: int, *, block_size: int = 4
                ) -> BlockPool:
    """A pool with `owned` blocks in use (about half of them findable), and the rest free.

    Of the free ones `cached` still hold a prefix. Numbers are shuffled, and so is the order in
    which blocks were released: nothing about a block can be told from its number.
    """
    pool = BlockPool(owned + cached + blank, block_size)
    blocks = draw.sample(range(pool.num_blocks), pool.num_blocks)
    used, kept, empty = (blocks[:owned], blocks[owned:owned + cached], blocks[owned + cached:])
    for block in used:
        pool.ref_count[block] = draw.choice((1, 1, 2, 3))
    for block in [*kept, *(b for b in used if draw.random() < 0.5)]:
        digest = digest_of(draw)
        pool.hash_of[block], pool.block_of[digest] = digest, block
    pool.free = OrderedDict.fromkeys([*empty, *kept])
    return pool


def snapshot(pool: BlockPool, result: Any = None, table: list[int] | None = None,
             heard: list[Any] | None = None) -> State:
    """The pool as plain lists; a Mistake where its fields are not what they were."""
    if not isinstance(pool.free, OrderedDict):
        raise Mistake(f"pool.free has become a {type(pool.free).__name__}; the engine needs the "
                      "OrderedDict: take entries out of it and put them in.", key="wrong-type")
    for name, kind in (("ref_count", list), ("hash_of", list), ("block_of", dict)):
        value = getattr(pool, name)
        if not isinstance(value, kind):
            raise Mistake(f"pool.{name} has become a {type(value).__name__}; change its entries "
                          "and leave the container.", key="wrong-type")
    return State(list(pool.ref_count), list(pool.free), list(pool.hash_of), dict(pool.block_of),
                 result, None if table is None else list(table), list(heard or []))


def judge(c: Check, got: State, want: State, known: Known, *, returns: str = "") -> None:
    """Nothing if `got` is `want`; else the known mistake that gives `got`, else what differs."""
    if got == want:
        return
    for key, (words, wrong) in known.items():
        if wrong is not None and wrong != want and got == wrong:
            raise Mistake(words, key=key, details=differences(got, want, returns)[:2])
    found = differences(got, want, returns)
    raise Mistake(found[0], key="wrong-state", details=found[1:3])


def differences(got: State, want: State, returns: str) -> list[str]:
    """Every difference between two states, one sentence each, what was returned first."""
    said = []
    if got.result != want.result:
        if got.result is None:
            said.append("Your function returned None" + (f"; it should return {returns}."
                                                         if returns else "."))
        else:
            said.append(f"You returned {_short(got.result)}, expected {_short(want.result)}.")
    if got.table != want.table:
        said.append(f"The block table is {got.table} afterwards, expected {want.table}.")
    for block, (a, b) in enumerate(zip(got.refs, want.refs, strict=False)):
        if a != b:
            said.append(f"Block {block} has ref_count {a} afterwards, expected {b}.")
            break
    if got.free != want.free:
        words = f"`free` is {got.free} afterwards, expected {want.free} (the first goes next)."
        if sorted(got.free) == sorted(want.free):
            words += " The blocks are right and their order is not."
        said.append(words)
    for block, (mine, right) in enumerate(zip(got.digests, want.digests, strict=False)):
        if mine != right:
            said.append(f"hash_of[{block}] is {_name(mine)} afterwards, expected {_name(right)}.")
            break
    if got.found != want.found:
        said.append(f"block_of holds {len(got.found)} digests afterwards, expected "
                    f"{len(want.found)}, or they lead to other blocks.")
    if got.heard != want.heard:
        said.append(f"pool.evicted was called {len(got.heard)} times, expected {len(want.heard)}"
                    ", or with other arguments.")
    if len(got.refs) != len(want.refs) or len(got.digests) != len(want.digests):
        said.append("ref_count and hash_of must keep one entry for each block of the pool.")
    return said or ["The pool is not as it should be."]


def unchanged(c: Check, before: Any, after: Any, name: str) -> None:
    """A Mistake where an argument that belongs to somebody else was changed."""
    if before != after:
        raise Mistake(f"Your function changes its argument `{name}`, which belongs to the caller: "
                      f"it was {_short(before)} and is {_short(after)}.", key="mutates-input")


def refused(c: Check, error: type[Exception], pool: BlockPool, run: Callable[[], Any],
            words: str) -> None:
    """`run()` must raise `error` and leave the pool as it was."""
    before = snapshot(pool)
    try:
        with c.guard():
            result = run()
    except error:
        after = snapshot(pool)
        if after != before:
            raise Mistake(f"{error.__name__} is raised, but the pool was changed before that: "
                          f"{differences(after, before, '')[0]} Whoever asked will try again "
                          "later; look first whether there is enough, then take.",
                          key="changed-before-raising") from None
        return
    except Exception as other:
        mistake = c.explain(other)
        if mistake.key == "raises":
            mistake.key = "wrong-error"
            mistake.words = f"{words}\n{mistake.words}"
        raise mistake from other
    raise Mistake(f"{words} Yours returned {_short(result)}.", key="not-refused")


def _name(digest: bytes | None) -> str:
    return "None" if digest is None else f"{digest.hex()[:8]}…" if isinstance(digest, bytes) else (
        repr(digest))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]} …"
