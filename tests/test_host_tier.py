"""The host tier: a least-recently-used home for prefixes that the pool gave up, and swapping."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from infero.cache.host import HostTier
from infero.scheduler import SchedulerConfig
from tests.scheduler_driver import Driver

A, B, C = b"a", b"b", b"c"


def test_least_recently_used_goes_first() -> None:
    host = HostTier(2)
    assert [host.put(A), host.put(B)] == [0, 1]
    assert host.match([A]) == [0], "a lookup counts as use"
    assert host.put(C) == 1 and list(host.block_of) == [A, C]
    assert host.match([B]) == [] and host.match([A, C]) == [0, 1]
    host.check_integrity()


def test_nothing_is_copied_twice() -> None:
    host = HostTier(2)
    host.put(A)
    host.put(B)
    assert host.put(A) is None, "it is there already"
    assert host.put(C) == 1, "and was used just now, so b goes"


def test_a_match_ends_at_the_first_gap() -> None:
    host = HostTier(4)
    host.put(A)
    host.put(C)
    assert host.match([A, B, C]) == [0] and host.match([B, A]) == [] == host.match([])


def test_no_tier() -> None:
    host = HostTier(0)
    assert host.put(A) is None and host.match([A]) == []
    host.check_integrity()


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_against_an_ordered_dictionary(size: int, actions: list[tuple[bool, int]]) -> None:
    host, plain = HostTier(size), OrderedDict[bytes, int]()
    for put, n in actions:
        digest = bytes([n])
        if put:
            block = host.put(digest)
            if digest in plain:
                assert block is None
            else:
                assert block is not None
                if len(plain) == size:
                    assert plain.popitem(last=False)[1] == block, "not the oldest was overwritten"
                assert block not in plain.values()
                plain[digest] = block
            plain.move_to_end(digest)
        else:
            assert host.match([digest]) == ([plain[digest]] if digest in plain else [])
            if digest in plain:
                plain.move_to_end(digest)
        assert list(host.block_of.items()) == list(plain.items())
        host.check_integrity()


# ---------------------------------------------------------------- swapping


def squeezed(host_blocks: int, prefix_caching: bool = True) -> Driver:
    """Two requests that do not fit together: the second is preempted, waits and comes back."""
    config = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64, watermark=0.0,
                             host_blocks=host_blocks, prefix_caching=prefix_caching)
    driver = Driver(config, 8, 2)
    for seed in range(2):
        driver.arrive([seed] * 6, 9, seed=seed, may_stop=False)
    driver.drain()
    return driver


def test_swap_brings_back_what_recompute_computes_again() -> None:
    swap, recompute = squeezed(16), squeezed(0)
    assert swap.seen["preempted"] >= 1 and recompute.seen["preempted"] >= 1
    assert swap.seen["in"] >= 2 and swap.seen["out"] >= swap.seen["in"]
    assert recompute.seen["in"] == recompute.seen["out"] == 0
    assert swap.seen["computed"] < recompute.seen["computed"]


def test_swapping_needs_no_prefix_caching_between_requests() -> None:
    alone = squeezed(16, prefix_caching=False)
    assert alone.seen["in"] >= 2
    driver = Driver(SchedulerConfig(host_blocks=16, prefix_caching=False), 8, 2)
    for _ in range(3):  # twins, one after another: they must share nothing
        driver.arrive([0] * 6, 2)
        driver.drain()
    assert driver.seen["reused"] == 0


def test_only_blocks_that_are_overwritten_travel() -> None:
    driver = Driver(SchedulerConfig(host_blocks=16), 32, 2)
    for seed in range(4):
        driver.arrive([seed % 3] * 6 + [seed % 2], 2, seed=seed)
        driver.drain()
    assert driver.seen["out"] == driver.seen["in"] == 0


def test_a_tier_too_small_loses_and_never_lies() -> None:
    """Room for a lookup's blocks is made first, which may push just those out of a small tier."""
    for host_blocks in (1, 2, 3, 8):
        config = SchedulerConfig(host_blocks=host_blocks, watermark=0.0)
        driver = Driver(config, 4, 2)
        for turn in range(12):  # the driver checks every slot that is read
            driver.arrive([turn % 2] * 5 + [turn % 3], 2, seed=turn, may_stop=False)
            driver.drain()
        assert driver.seen["out"] > 0 and (driver.seen["in"] > 0 or host_blocks < 8)


def test_what_came_back_is_shared_at_once() -> None:
    """Two requests want the same prefix out of the tier in one step: it is copied in once."""
    config = SchedulerConfig(host_blocks=32, watermark=0.0)
    driver = Driver(config, 12, 2)
    driver.arrive([0] * 9, 1, may_stop=False)
    driver.drain()
    driver.arrive([1] * 24, 1, may_stop=False)  # takes every block of the pool
    driver.drain()
    for tail in range(2):
        driver.arrive([0] * 9 + [tail], 2, may_stop=False)
    plan = driver.schedule()
    assert plan is not None and [(e.start, e.n) for e in plan.entries] == [(8, 2), (8, 2)]
    assert driver.seen["in"] == 4
    driver.drain()
