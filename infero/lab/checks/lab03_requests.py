"""The checks of Lab 3's two functions on requests: their latency, and what of them is good."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable

from infero.bench import Latency
from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab03_tools import compare, number

# ---------------------------------------------------------------- 3a: latency


def latency(c: Check) -> None:
    """Random token times on a clock that does not start at zero; one token; none."""
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for n in (7, 2, 1, 30, 0):
            due = draw.uniform(100, 900)
            now, times = due + draw.uniform(0.2, 2), []
            for _ in range(n):
                times.append(now)
                now += draw.expovariate(20.0) + 1e-3
            kept = list(times)
            got = c.call(due, times)
            c.expect(times == kept, "mutates-input", "Your function changes `token_times_s`.")
            if not isinstance(got, Latency):
                given = got if not isinstance(got, tuple) else "a tuple"
                raise Mistake(f"Return Latency(ttft_s, tpot_s, e2e_s); you gave {given!r}.",
                              key="wrong-type")
            _judge_latency(c, got, due, times)


def _judge_latency(c: Check, got: Latency, due: float, times: list[float]) -> None:
    if not times:
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            c.expect(math.isinf(number(c, getattr(got, name), name)), "failed-request",
                     f"A request that never gave a token has failed: its {name} is infinite, so "
                     "that no percentile and no goodput takes it for a fast one.")
        return
    n, first, last = len(times), times[0], times[-1]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    ttft, e2e = first - due, last - due
    tpot = math.fsum(gaps) / len(gaps) if gaps else 0.0
    compare(c, number(c, got.ttft_s, "ttft_s"), ttft, {
        "due-ignored": ("TTFT is the moment of the first token; take off when the request was due",
                        first),
        "e2e-for-ttft": ("TTFT is measured to the last token; it ends with the first", e2e),
        "fields-swapped": ("the TPOT stands in the field ttft_s: the order is ttft_s, tpot_s, "
                           "e2e_s", tpot),
    }, what=f"the TTFT of {n} tokens", rtol=1e-9)
    middle = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    compare(c, number(c, got.tpot_s, "tpot_s"), tpot, {
        "divided-by-tokens": ("TPOT divides by the number of tokens; n tokens have n - 1 gaps",
                              (last - first) / n),
        "ttft-in-tpot": ("TPOT includes the wait for the first token; that is TTFT's. Start at the "
                         "first token", e2e / n),
        "ttft-in-tpot-gaps": ("TPOT includes the wait for the first token; that is TTFT's. Start "
                              "at the first token", e2e / max(n - 1, 1)),
        "total-not-mean": ("this is the time of all gaps together; divide by their number",
                           last - first),
        "median-gap": ("this is the median gap; TPOT is the mean one", middle),
        "longest-gap": ("this is the longest gap; TPOT is the mean one", max(gaps, default=0.0)),
        "infinite-tpot": ("with a single token there is no gap to wait for: 0.0", math.inf),
        "fields-swapped": ("the end-to-end time stands in the field tpot_s: the order is ttft_s, "
                           "tpot_s, e2e_s", e2e),
    }, what=f"the TPOT of {n} tokens", rtol=1e-9)
    compare(c, number(c, got.e2e_s, "e2e_s"), e2e, {
        "due-ignored": ("E2E is the moment of the last token; take off when the request was due",
                        last),
        "from-first-token": ("E2E starts at the first token; it starts when the request was due",
                             last - first),
    }, what=f"the E2E time of {n} tokens", rtol=1e-9)


# ---------------------------------------------------------------- 3b: goodput


def goodput(c: Check) -> None:
    """Requests on every side of both limits, exactly on them, failed ones, and none at all."""
    for seed in c.seeds(4):
        draw = random.Random(seed)
        ttft_slo, tpot_slo = draw.uniform(0.3, 2), draw.uniform(0.02, 0.2)
        duration = draw.uniform(3, 90)
        kinds = ((0.4, 0.5, 7), (0.6, 1.9, 4), (2.5, 0.7, 6), (3.0, 2.0, 3), (1.0, 1.0, 2),
                 (1.0, 0.3, 1), (0.2, 1.0, 1), (0.0, 1.0, 1), (math.inf, math.inf, 2))
        many = [Latency(a * ttft_slo, b * tpot_slo,
                        a * ttft_slo + (0.05 if b == 1 else draw.uniform(0.1, 9)))
                for a, b, count in kinds for _ in range(count)]
        draw.shuffle(many)
        mine = list(many)
        got = number(c, c.call(mine, duration, ttft_slo, tpot_slo), "the goodput")
        c.expect(mine == many, "mutates-input", "Your function changes `latencies`.")
        _judge_goodput(c, got, many, duration, ttft_slo, tpot_slo)
        nothing = number(c, c.call([], duration, ttft_slo, tpot_slo), "the goodput")
        compare(c, nothing, 0.0, {}, what="the goodput of no requests")


def _judge_goodput(c: Check, got: float, many: Iterable[Latency], duration: float,
                   ttft_slo: float, tpot_slo: float) -> None:
    ttft = {i for i, one in enumerate(many) if not one.ttft_s > ttft_slo}
    tpot = {i for i, one in enumerate(many) if not one.tpot_s > tpot_slo}
    total = sum(1 for _ in many)
    strict = sum(one.ttft_s < ttft_slo and one.tpot_s < tpot_slo for one in many)
    e2e = sum(one.e2e_s <= ttft_slo and one.tpot_s <= tpot_slo for one in many)
    compare(c, got, len(ttft & tpot) / duration, {
        "either-limit": ("a request counts that keeps one of the limits; it must keep both",
                         len(ttft | tpot) / duration),
        "ttft-only": ("TPOT is not looked at; a request must keep both limits",
                      len(ttft) / duration),
        "tpot-only": ("TTFT is not looked at; a request must keep both limits",
                      len(tpot) / duration),
        "share": ("this is the share of good requests (the attainment); goodput is a rate: divide "
                  "by duration_s", len(ttft & tpot) / total),
        "count": ("this is the number of good requests; divide by duration_s", len(ttft & tpot)),
        "throughput": ("this counts every request, good or not", total / duration),
        "strict": ("a request exactly on a limit keeps it: at most, not less than",
                   strict / duration),
        "e2e-for-ttft": ("the first limit is on TTFT, not on the end-to-end time", e2e / duration),
        "swapped-limits": ("the limits are exchanged: TTFT goes with ttft_slo_s",
                           sum(one.ttft_s <= tpot_slo and one.tpot_s <= ttft_slo for one in many)
                           / duration),
    }, what="the goodput", rtol=1e-9)
